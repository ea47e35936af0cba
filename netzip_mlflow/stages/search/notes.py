"""What a search leaves in MLflow: its state while it runs; then pictures, a view, a summary."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from netzip_mlflow import techniques, training
from netzip_mlflow.report import plots, search_note, search_plots, views
from netzip_mlflow.report.trials import Trials as Told
from netzip_mlflow.report.trials import read
from netzip_mlflow.runs import candidates, comparison
from netzip_mlflow.search import records
from netzip_mlflow.search import study as studies
from netzip_mlflow.search.importances import importances

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from netzip_mlflow.report.search_note import Winner
    from netzip_mlflow.runs.bench import Outcome
    from netzip_mlflow.runs.job import Job
    from netzip_mlflow.stages.search.objective import Trials

__all__ = ["begin", "conclude", "follow"]

RESUME = "netzip.resume"  # on the study: workers know no command that a person would give
PLOTS = "plots/search"
PROGRESS, NOTED = "the search's progress", "the search's note"
SHOWN = 8  # params in the view's parallel coordinates


def begin(work: Job, trials: Trials, storage: str) -> None:
    """The parent says what it searches before the first trial has ended.

    Args:
        storage: the database's URL without its password.
    """
    study = trials.study
    command = search_note.resume(work.options.command, study.study_name, storage)
    study.set_user_attr(RESUME, command)
    work.piece(PROGRESS, _note, work, trials)


def follow(work: Job, trials: Trials, ended: FrozenTrial) -> None:
    """The study's state on the parent, after each trial."""
    work.piece(PROGRESS, _follow, work, trials, ended)


def _follow(work: Job, trials: Trials, ended: FrozenTrial) -> None:
    state = _note(work, trials)
    work.run.log(_metrics(state), step=ended.number)
    best = state.best
    so_far = "nothing feasible yet" if best is None else f"best OCS {best.ocs:.3f}"
    work.say(f"{state.ended} of {state.planned} trials, {so_far}")


def conclude(work: Job, trials: Trials, outcome: Outcome, winner: Winner | None) -> None:
    """Pictures, the view *Search*, and a summary above the final comparison's note, each apart."""
    work.piece(NOTED, _summarise, work, trials, outcome, winner)


def _summarise(work: Job, trials: Trials, outcome: Outcome, winner: Winner | None) -> None:
    state, study = _state(trials), trials.study
    work.run.log(_metrics(state), step=len(study.trials))
    shares = work.piece("importances", importances, study) or {}
    drawn = work.piece(PLOTS, _pictures, work, trials, state, shares) or []
    work.piece("view Search", _view, work, trials, outcome)
    origin = trials.origin.measured
    assert origin is not None  # noqa: S101 (judged before)
    assert origin.basis is not None  # noqa: S101 (graded by the comparison)
    summary = search_note.summary(
        _about(trials),
        state,
        pd.DataFrame([candidates.row(c).record() for c in outcome.candidates]),
        winner,
        basis=origin.basis.label(),
        terms=origin.terms,
        reason=outcome.choice.reason,
        left_out=search_plots.missing(state, shares),
    )
    picture = f"![](get-artifact?path={PLOTS}/history.png&run_uuid={work.run.id})\n\n"
    compared = comparison.note(
        outcome.choice, work.run.experiment_id, comparison.WITH_SEARCH, work.missing
    )
    work.run.note(
        f"{summary}\n\n{picture if 'history' in drawn else ''}Pictures of the search: `{PLOTS}/`; "
        f"every trial: `trials.csv`\n\n### Final comparison\n\n{compared}"
    )


def _pictures(work: Job, trials: Trials, state: Told, shares: Mapping[str, float]) -> list[str]:
    """Draw and log the search's pictures; the names of those that are there."""
    place = work.folder / "plots" / "search"
    drawn = search_plots.figures(state, shares, trials.limits.max_drop_points)
    for name, figure in drawn.items():
        plots.save(figure, place / f"{name}.png")
        figure.set_layout_engine("none")  # it has been laid out
        plots.save(figure, place / f"{name}.svg")
    if drawn:
        work.run.artifact(place, PLOTS)
    return list(drawn)


def _state(trials: Trials) -> Told:
    study = trials.study
    ranking = [t.number for t in records.ranked(records.ended(study))]
    planned = studies.progress(study).planned
    return read(records.rows(study), ranking, records.varied(study), planned)


def _note(work: Job, trials: Trials) -> Told:
    state = _state(trials)
    most = trials.end - time.monotonic()
    text = search_note.running(_about(trials), state, None if math.isinf(most) else most)
    work.run.note(text)
    return state


def _about(trials: Trials) -> search_note.About:
    recipe = trials.recipe
    return search_note.About(
        recipe.name,
        trials.study.study_name,
        recipe.search.sampler if recipe.search else "",
        trials.limits.describe(),
        trials.study.user_attrs.get(RESUME, ""),
    )


def _metrics(state: Told) -> dict[str, float]:
    counts = {f"search/{outcome}": float(count) for outcome, count in state.counts.items()}
    best = state.best
    known = {} if best is None or best.ocs is None else {"search/best_ocs": best.ocs}
    seconds = state.at_work
    return {"search/ended": float(state.ended), "search/seconds": seconds, **counts, **known}


def _view(work: Job, trials: Trials, outcome: Outcome) -> None:
    held = {k for c in outcome.candidates if c.measured for k in c.measured.metrics}
    parameters = _shared(trials.study)[:SHOWN]
    view = views.search({*held, *training.LOGGED}, work.run.id, parameters)
    experiment = work.run.experiment_id
    links = comparison.links(experiment, comparison.WITH_SEARCH)
    tags = dict([views.tag(view, now_ms=int(time.time() * 1000))])
    note = f"Compressed models compared: {links}"
    work.tracker.set_experiment_tags(experiment, {**tags, comparison.NOTE: note})


def _shared(study: optuna.Study) -> list[str]:
    """Params of MLflow that every judged trial has, with values that differ."""
    judged = [t for t in records.ended(study) if records.REASON not in t.user_attrs]
    chains = [techniques.chain(records.entries(trial)) for trial in judged]
    params = [{k: str(v) for k, v in candidates.parameters(chain)} for chain in chains]
    first = params[0] if params else {}
    common = [key for key in first if all(key in each for each in params)]
    return [key for key in common if len({each[key] for each in params}) > 1]
