"""What trials leave in a study's database, and how they stand to each other."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netzip_mlflow.scoring import violation
from netzip_mlflow.search.study import ERROR, NAME, SLOT, ends_slot

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = [
    "CHAIN",
    "DROP",
    "ENTRIES",
    "FEASIBLE",
    "OCS",
    "RATIOS",
    "REASON",
    "RUN",
    "SAME",
    "VIOLATIONS",
    "best_ocs",
    "drop",
    "ended",
    "entries",
    "front",
    "made",
    "outcome",
    "ranked",
    "rows",
    "same",
    "varied",
]

CHAIN, DROP, ENTRIES, FEASIBLE, OCS, RATIOS, REASON, RUN, VIOLATIONS = (
    f"netzip.{part}"
    for part in (
        "chain",  # a label
        "drop",  # in points on validation, with its interval, JSON
        "entries",  # as a recipe's candidate is written, JSON
        "feasible",  # Optuna's dashboard does not show constraints
        "ocs",  # on validation
        "ratios",  # P, S, C on validation, JSON; of trials that were judged to their end
        "reason",  # why it ended before its time
        "run_id",  # in MLflow
        "violations",  # by constraint, JSON
    )
)
SAME = "the same chain as trial"  # how the reason of one begins that was tried before


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were told with their constraints, by number; without those that the bound
    skipped or that failed."""
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return [t for t in done if FEASIBLE in t.user_attrs]


def made(trial: FrozenTrial) -> bool:
    """Whether it came to its end, be it an early one: it neither failed nor was lost."""
    from optuna.trial import TrialState

    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def entries(trial: FrozenTrial) -> tuple[dict[str, dict[str, Any]], ...]:
    """A trial's chain, as a recipe's candidate is written."""
    return tuple(json.loads(trial.user_attrs[ENTRIES]))


def best_ocs(trials: Sequence[FrozenTrial]) -> float | None:
    """The highest OCS of the feasible ones."""
    return max((t.user_attrs[OCS] for t in trials if t.user_attrs[FEASIBLE]), default=None)


def same(trials: Sequence[FrozenTrial], chain: str) -> FrozenTrial | None:
    """One of the same chain (JSON of its entries) that was judged to its end."""
    alike = (t for t in trials if t.user_attrs[ENTRIES] == chain)
    return next((t for t in alike if REASON not in t.user_attrs), None)


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Ended trials, the best first: feasible ones by OCS, then the others by their violation, the
    fewest unknown ones first; of equal chains the first. Those that were stopped early only where
    there are no others."""

    def rank(trial: FrozenTrial) -> tuple[int, float, int]:
        told = trial.user_attrs
        if told[FEASIBLE]:
            return 0, -told[OCS], trial.number
        of = json.loads(told[VIOLATIONS])
        unknown = sum(map(math.isinf, of.values()))
        return 1 + unknown, violation(of), trial.number

    whole = [t for t in trials if REASON not in t.user_attrs] or trials
    judged = {t.user_attrs[ENTRIES]: t for t in reversed(whole)}
    return sorted(judged.values(), key=rank)


def front(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> list[FrozenTrial]:
    """The feasible ones that none is better than: as good in every ratio, and better in one."""
    told = [t for t in ranked(trials) if t.user_attrs[FEASIBLE] and RATIOS in t.user_attrs]
    places = [tuple(json.loads(t.user_attrs[RATIOS])[key] for key in objectives) for t in told]

    def beaten(place: tuple[float, ...]) -> bool:
        return any(
            other != place and all(o >= p for o, p in zip(other, place, strict=True))
            for other in places
        )

    return [t for t, place in zip(told, places, strict=True) if not beaten(place)]


def drop(metrics: Mapping[str, float]) -> str:
    """The drop in points on validation, and its interval, as `DROP` keeps it."""
    key = "validation/accuracy/drop_points"
    parts = ("drop", ""), ("drop_low", "_low"), ("drop_high", "_high")
    return json.dumps({name: metrics[key + end] for name, end in parts if key + end in metrics})


def outcome(trial: FrozenTrial) -> str:
    """What became of a trial: `feasible` or `infeasible` where it was judged to its end; `same`,
    `stopped` early, `skipped` by the bound; `failed`; `lost` by the end of its process or of
    the time, and tried again; else its state, such as `running`."""
    from optuna.trial import TrialState

    told = trial.user_attrs
    if trial.state == TrialState.FAIL:
        return "failed" if ends_slot(trial) else "lost"
    if trial.state == TrialState.PRUNED:
        return "skipped"
    if trial.state != TrialState.COMPLETE:
        return trial.state.name.lower()
    if REASON in told:
        return "same" if told[REASON].startswith(SAME) else "stopped"
    return "feasible" if told.get(FEASIBLE) else "infeasible"


def varied(study: optuna.Study) -> dict[str, Any]:
    """What was varied, by name, as a recipe writes it: a list of values, or a range."""
    from optuna.distributions import FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, domain in trial.distributions.items():
            if isinstance(domain, FloatDistribution | IntDistribution):
                found[name] = {"low": domain.low, "high": domain.high, "log": domain.log}
            else:
                found[name] = list(domain.choices)  # type: ignore[attr-defined]  (the third kind)
    return found


def rows(study: optuna.Study, objectives: Sequence[str] = ()) -> list[dict[str, object]]:
    """Every planned trial as a row: its state, why it ended early, figures and what was varied; of
    a study with `objectives` also whether it is of their front."""
    best = {trial.number for trial in front(ended(study), objectives)} if objectives else set()
    found = []
    for trial in study.get_trials(deepcopy=False):
        known = trial.user_attrs
        if CHAIN not in known:
            continue
        whole = REASON not in known
        ratios = json.loads(known[RATIOS]) if RATIOS in known else {}
        found.append(
            {
                "trial": trial.number,
                "slot": known[SLOT],
                "state": trial.state.name,
                "outcome": outcome(trial),
                "feasible": known.get(FEASIBLE, ""),
                "ocs": known.get(OCS, "") if whole else "",
                **{f"ratio/{key}": value for key, value in ratios.items()},
                **({"front": trial.number in best} if objectives else {}),
                **json.loads(known.get(DROP, "{}")),
                "reason": known.get(REASON, known.get(ERROR, "")),
                "candidate": known.get(NAME, ""),
                "chain": known[CHAIN],
                "run_id": known[RUN],
                "started": trial.datetime_start,
                "ended": trial.datetime_complete,
                **{f"violation.{k}": v for k, v in json.loads(known.get(VIOLATIONS, "{}")).items()},
                **trial.params,
            }
        )
    return found
