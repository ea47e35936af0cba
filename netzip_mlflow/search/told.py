"""What trials leave in a study's database, and how they stand to each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netzip_mlflow.search.study import ERROR, NAME, SLOT

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = [
    "CHAIN",
    "ENTRIES",
    "FEASIBLE",
    "OCS",
    "RATIOS",
    "REASON",
    "RUN",
    "VIOLATIONS",
    "best_ocs",
    "ended",
    "entries",
    "front",
    "ranked",
    "rows",
    "same",
]

CHAIN, ENTRIES, FEASIBLE, OCS, RATIOS, REASON, RUN, VIOLATIONS = (
    f"netzip.{part}"
    for part in (
        "chain",  # a label
        "entries",  # as a recipe's candidate is written, JSON
        "feasible",  # Optuna's dashboard does not show constraints
        "ocs",  # on validation
        "ratios",  # P, S, C on validation, JSON; of trials that were judged to their end
        "reason",  # why it ended before its time
        "run_id",  # in MLflow
        "violations",  # by constraint, JSON
    )
)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were told with their constraints, by number; without those that the bound
    skipped or that failed."""
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return [t for t in done if FEASIBLE in t.user_attrs]


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
    """Ended trials, the best first: feasible ones by OCS, then the others by their violation; of
    equal chains the first. Those that were stopped early only where there are no others."""

    def rank(trial: FrozenTrial) -> tuple[bool, float, int]:
        told = trial.user_attrs
        if told[FEASIBLE]:
            return False, -told[OCS], trial.number
        return True, violation(json.loads(told[VIOLATIONS])), trial.number

    whole = [t for t in trials if REASON not in t.user_attrs] or trials
    judged = {t.user_attrs[ENTRIES]: t for t in reversed(whole)}
    return sorted(judged.values(), key=rank)


def violation(of: Mapping[str, float]) -> float:
    """The sum of what is over its limit: the scale that Optuna's samplers rank by."""
    return sum(max(0.0, excess) for excess in of.values())


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


def rows(study: optuna.Study) -> list[dict[str, object]]:
    """Every planned trial as a row: its state, why it ended early, figures and what was varied."""
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
                "feasible": known.get(FEASIBLE, ""),
                "ocs": known.get(OCS, "") if whole else "",
                **{f"ratio/{key}": value for key, value in ratios.items()},
                "reason": known.get(REASON, known.get(ERROR, "")),
                "candidate": known.get(NAME, ""),
                "chain": known[CHAIN],
                "run_id": known[RUN],
                "started": trial.datetime_start,
                "ended": trial.datetime_complete,
                **{f"violation.{k}": v for k, v in trial.constraints.items()},
                **trial.params,
            }
        )
    return found
