"""How much each parameter mattered for being among the best trials of a study."""

from __future__ import annotations

import json
import math
import warnings
from typing import TYPE_CHECKING

from netzip_mlflow.scoring import violation
from netzip_mlflow.search import records

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["importances"]

LEAST = 10  # trials that were told with their constraints
TOP = 5  # of the best trials at least are held against all: fewer say nothing (Optuna's advice)
FAR = 1e6  # a violation that is infinite


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each parameter, the largest first; empty where there is nothing to tell from.

    Optuna's PED-ANOVA (Watanabe et al. 2023), which knows conditional parameters: how differently a
    parameter is distributed among the best tenth, or five, and among all trials. Feasible trials
    are better than all others, as everywhere; those go by their violation.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    trials = records.ended(study)
    ranks = {trial.number: rank(trial) for trial in trials}
    if len(trials) < LEAST or len(set(ranks.values())) == 1:
        return {}
    worst_feasible = max((place for bad, place in ranks.values() if not bad), default=0.0)

    def target(trial: FrozenTrial) -> float:
        bad, place = ranks.get(trial.number, (True, FAR))
        return worst_feasible + place if bad else place

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "computes ... to achieve low values": meant
        warnings.simplefilter("ignore", ExperimentalWarning)  # we pin Optuna's versions
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, TOP / len(trials)))
        found = get_param_importances(study, evaluator=evaluator, target=target, normalize=False)
    whole = sum(found.values())
    return {name: share / whole for name, share in found.items()} if whole > 0 else {}


def rank(trial: FrozenTrial) -> tuple[bool, float]:
    """Whether a trial is infeasible, and less the better it is: -OCS, else its violation."""
    if trial.user_attrs[records.FEASIBLE]:
        return False, -trial.user_attrs[records.OCS]
    over = violation(json.loads(trial.user_attrs[records.VIOLATIONS]))
    return True, min(over, FAR) if math.isfinite(over) else FAR
