"""The end of a search: the best few measured on test, the winner registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.recipe import SearchSpec
from netzip_mlflow.report.searched import Winner
from netzip_mlflow.search import study as studies
from netzip_mlflow.search import told
from netzip_mlflow.stages import compress, searched
from netzip_mlflow.tracking.models import register

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Exports
    from netzip_mlflow.scoring import Choice
    from netzip_mlflow.stages.candidates import Candidate
    from netzip_mlflow.stages.job import Job
    from netzip_mlflow.stages.trial import Trials

__all__ = ["Found", "finish"]

ALIAS = "best-ocs"


@dataclass(frozen=True, eq=False)
class Found:
    """What a search leaves behind. `trial` is the best feasible one's number, or that of the one
    that violates least; `outcome` the final comparison, `winner` who won it, if it was registered.
    """

    study: str
    storage: str
    trial: int | None
    feasible: bool
    trials: int
    outcome: compress.Outcome
    winner: Winner | None = None


def finish(work: Job, trials: Trials, name: str, url: str, exports: Exports) -> Found:
    """The best few measured on test, beside the recipe's own candidates."""
    recipe, best = trials.recipe, told.ranked(told.ended(trials.study))
    spec = recipe.search or SearchSpec()
    place = work.folder / "trials.csv"
    pd.DataFrame(told.rows(trials.study, spec.objectives)).to_csv(place, index=False)
    work.run.artifact(place)
    if not best:
        raise NetzipError("no trial was judged: every one failed, or was stopped early")
    chosen = {f"trial-{t.number}": told.entries(t) for t in best[: spec.keep]}
    whole = recipe.model_copy(update={"candidates": {**recipe.candidates, **chosen}})
    outcome = compress.together(
        work, list(whole.candidates), trials.origin, whole, trials.task, exports, trials.cache
    )
    known_by_the_drop = not trials.limits.names()[1:]  # else only trials were judged by all limits
    wanted = outcome.choice.best if known_by_the_drop else f"trial-{best[0].number}"
    winner = next((c for c in outcome.candidates if c.name == wanted and c.measured), None)
    won = None
    if winner is not None and best[0].user_attrs[told.FEASIBLE]:
        refusal = _register(winner, recipe.name)
        if refusal:
            work.say(f"{winner.name} is not registered as {recipe.name}: {refusal}")
        why = _why(trials, winner.name, outcome.choice if known_by_the_drop else None)
        address = "" if refusal else f"models:/{recipe.name}@{ALIAS}"
        won = Winner(winner.name, why, address, refusal, of_trials=not known_by_the_drop)
    searched.conclude(work, trials, outcome, won)
    return Found(
        name,
        url,
        best[0].number,
        bool(best[0].user_attrs[told.FEASIBLE]),
        studies.progress(trials.study).ended,
        outcome,
        won,
    )


def _why(trials: Trials, winner: str, choice: Choice | None) -> str:
    """Why this model is the winner; `choice`: of the comparison, where that decided."""
    if choice is None:
        return "the highest OCS on validation of the trials within every limit"
    own = trials.recipe.candidates.get(winner)
    if own is None:
        return choice.reason
    inside = trials.space.encode(own) is not None
    among = "which is a trial too" if inside else "which lies outside the space"
    return f"{choice.reason}; it is the recipe's own candidate, {among}"


def _register(winner: Candidate, name: str) -> str:
    """The winner in MLflow's registry, with what a reader of the registry must know of it; returns
    why it is not there, or nothing."""
    found = winner.measured
    assert found is not None  # noqa: S101 (it was chosen by its measurement)
    drop = "accuracy/drop_points"
    shown = {
        f"netzip.{name}": f"{found.metrics[key]:.4g}"
        for name, key in (
            ("ocs", "score/ocs"),
            ("drop_points", drop),
            ("drop_points_low", f"{drop}_low"),
            ("drop_points_high", f"{drop}_high"),
        )
    }
    basis = {
        "netzip.basis": found.basis.label() if found.basis else "",
        "netzip.terms": found.terms,
    }
    tags = {**shown, **basis, "netzip.chain": winner.chain}
    return register(winner.run, name, ALIAS, tags)
