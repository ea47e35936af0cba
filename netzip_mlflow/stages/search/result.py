"""The end of a search: the best few measured on test, the winner registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.factories import paths
from netzip_mlflow.recipe import SearchSpec
from netzip_mlflow.report import sheet
from netzip_mlflow.report.search_note import Winner
from netzip_mlflow.runs.bench import Outcome, together
from netzip_mlflow.search import records
from netzip_mlflow.search import study as studies
from netzip_mlflow.search.study import NAME
from netzip_mlflow.stages.search import notes

if TYPE_CHECKING:
    from netzip_mlflow.runs.candidates import Candidate
    from netzip_mlflow.runs.job import Job
    from netzip_mlflow.scoring import Choice
    from netzip_mlflow.stages.search.objective import Trials

__all__ = ["Found", "finish"]

ALIAS = "best-ocs"


@dataclass(frozen=True, eq=False)
class Found:
    """What a search leaves behind: the final comparison decides.

    Args:
        trial: number of the one that the comparison names, its best or else its least violating;
            None where that is a candidate of the recipe that no trial has made.
        trials: how many have ended.
        winner: the best; None where nothing keeps every limit.
    """

    study: str
    storage: str
    trial: int | None
    trials: int
    outcome: Outcome
    winner: Winner | None = None

    @property
    def feasible(self) -> bool:
        """Whether anything keeps every limit."""
        return self.outcome.choice.feasible


def finish(trials: Trials, name: str, url: str) -> Found:
    """The best few measured on test, beside the recipe's own candidates."""
    work, recipe, best = trials.work, trials.recipe, records.ranked(records.ended(trials.study))
    spec = recipe.search or SearchSpec()
    work.piece("trials.csv", _list_trials, work, records.rows(trials.study, spec.objectives))
    if not best:
        raise NetzipError("no trial was judged: every one failed, or was stopped early")
    chosen = {f"trial-{t.number}": records.entries(t) for t in best[: spec.keep]}
    if foreign := paths(chosen) - recipe.code():  # the study's database is data, too
        raise NetzipError(f"trials name {', '.join(sorted(foreign))}, which the recipe does not")
    chains = {**recipe.candidates, **chosen}
    outcome = together(trials.bench, chains, trials.origin, trials.limits)
    choice = outcome.choice
    best_one = next((c for c in outcome.candidates if c.name == choice.best), None)
    winner = None
    if best_one is not None:
        refusal = _register(best_one, recipe.name)
        if refusal:
            work.say(f"{best_one.name} is not registered as {recipe.name}: {refusal}")
        address = "" if refusal else f"models:/{recipe.name}@{ALIAS}"
        winner = Winner(best_one.name, _why(trials, best_one.name, choice), address, refusal)
    notes.conclude(work, trials, outcome, winner)
    number = _number(trials, choice.named)
    return Found(name, url, number, studies.progress(trials.study).ended, outcome, winner)


def _number(trials: Trials, name: str | None) -> int | None:
    """Of the trial that a model of the comparison is, be it a candidate's that was tried first."""
    ended = records.ended(trials.study)
    names = {t.user_attrs[NAME]: t.number for t in ended if NAME in t.user_attrs}
    return (names | {f"trial-{t.number}": t.number for t in ended}).get(name or "")


def _list_trials(work: Job, rows: Sequence[Mapping[str, object]]) -> None:
    work.run.artifact(sheet.write(work.folder / "trials.csv", rows))


def _why(trials: Trials, winner: str, choice: Choice) -> str:
    """Why this model is the winner."""
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
    return winner.run.register(name, ALIAS, tags)
