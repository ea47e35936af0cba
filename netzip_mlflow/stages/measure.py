"""Measuring: models made anywhere, on this machine, all interleaved with one baseline."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from netzip_mlflow import folders, measuring, runtimes
from netzip_mlflow.errors import InputError, NetzipError, Problem
from netzip_mlflow.metrics.catalogue import families
from netzip_mlflow.metrics.family import Conditions, Progress
from netzip_mlflow.recipe import MeasureSpec, ScoreSpec
from netzip_mlflow.runs.further_runtimes import compare_runtimes
from netzip_mlflow.runs.job import Options, job, open_tracker, version_tag
from netzip_mlflow.scoring import Basis, Constraints

if TYPE_CHECKING:
    from netzip_mlflow.measuring import Measurement
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runtimes.adapter import Adapter
    from netzip_mlflow.tracking import Run, Tracker

__all__ = ["Subject", "measure", "measure_files", "spec_of"]


@dataclass(frozen=True)
class Subject:
    """A model to measure: what it is called, where its file lies, which run made it."""

    name: str
    uri: str
    file: Path
    run_id: str | None


def measure(
    uris: Sequence[str],
    options: Options,
    *,
    baseline: str | None = None,
    recipe: Recipe | None = None,
    adapter: Adapter | None = None,
    spec: MeasureSpec | None = None,
) -> list[tuple[Subject, Measurement]]:
    """Time all models together, the baseline first; with a recipe, their accuracy and score too.

    Args:
        uris: `models:/...`, `runs:/...`, or paths of ONNX files.
        baseline: the same; by default the one that the first model's tags name.
        recipe: gives data, and how to score.
        spec: how to measure, where not as the recipe says (see `spec_of`).
        adapter: how files of other tools (without a `netzip.json` beside them) want their input.

    Raises:
        InputError: a model that cannot be fetched or read, no baseline, models of several tasks.
        NetzipError: the baseline cannot be timed, or no other model can.
    """
    tracker = open_tracker(options)
    with folders.temporary() as fetched:
        subjects = _subjects(tracker, fetched, uris, baseline)
        session = _open(subjects, recipe, adapter, spec)
        with job("measure", "measure", options, tracker) as work:
            work.run.log(tags=version_tag())
            session.run(work.progress)
            found = session.measured
            _, fingerprint = work.fingerprint(found[0].model.session)
            origin: Run | None = None
            for subject, each in zip(subjects, found, strict=True):
                run = work.run.child("measurement", subject.name, below=subject.run_id)
                origin = origin or run
                run.log(each.metrics, tags=_tags(subject, each, origin.id, fingerprint))
                run.end("FAILED" if each.fault else "FINISHED", each.fault)
                if each.fault:
                    work.say(f"{subject.name} failed: {each.fault}")
            _require_one(found)
            compare_runtimes(work, found, session.conditions)
    return list(zip(subjects, found, strict=True))


def measure_files(
    paths: Sequence[str],
    baseline: str | None,
    *,
    recipe: Recipe | None = None,
    adapter: Adapter | None = None,
    spec: MeasureSpec | None = None,
    progress: Progress = lambda _what, _done: None,
) -> list[tuple[Subject, Measurement]]:
    """`measure` for files only, without a store: nothing is logged (edge devices without a server).

    Raises:
        InputError: a path that is no ONNX file, or no baseline.
        NetzipError: as `measure`.
    """
    if baseline is None:
        raise InputError(Problem("--baseline", "is missing", "with --no-log: a path"))
    subjects = [Subject("baseline", baseline, _file(baseline), None)]
    subjects += [Subject(_stem(_file(p)), p, _file(p), None) for p in paths]
    subjects = _named_once(subjects)
    session = _open(subjects, recipe, adapter, spec)
    session.run(progress)
    _require_one(session.measured)
    measuring.run_elsewhere(session.measured, replace(session.conditions, progress=progress))
    return list(zip(subjects, session.measured, strict=True))


def spec_of(recipe: Recipe | None, threads: int | None, executors: Sequence[str]) -> MeasureSpec:
    """How to measure: as the recipe says, but for what the command line gives.

    Args:
        threads: None for the recipe's.
        executors: names of runtimes, of which the first scores; none for the recipe's.

    Raises:
        InputError: there is no such runtime, or it cannot score.
    """
    spec = recipe.measure if recipe else MeasureSpec()
    changed: dict[str, object] = {"threads": threads} if threads is not None else {}
    if executors:
        if wrong := runtimes.problems(executors, "--runtime"):
            raise InputError(wrong)
        changed["runtimes"] = tuple(executors)
    return spec.model_copy(update=changed)


def _require_one(found: Sequence[Measurement]) -> None:
    others = found[1:]
    if others and all(each.fault for each in others):
        raise NetzipError(f"no model could be measured; {others[0].name}: {others[0].fault}")


@dataclass(frozen=True, eq=False)
class _Session:
    """Models that were read and fit each other, the baseline first, ready to be measured."""

    measured: list[Measurement]
    conditions: Conditions
    score: ScoreSpec

    def run(self, progress: Progress) -> None:
        """Judge (with a task), time and grade."""
        task = self.conditions.task
        basis = Basis.from_spec(self.score, task.primary if task else None)
        limits = Constraints.from_spec(self.score)
        conditions = replace(self.conditions, progress=progress)
        measuring.measure_together(self.measured, conditions, basis, limits)


def _open(
    subjects: Sequence[Subject],
    recipe: Recipe | None,
    adapter: Adapter | None,
    spec: MeasureSpec | None,
) -> _Session:
    """Read every file and the data, before any run exists.

    Raises:
        InputError: a file that cannot be read or counted, models of several tasks.
    """
    spec = spec or spec_of(recipe, None, ())
    task = None
    if recipe is not None:
        from netzip_mlflow.tasks import open_task

        task = open_task(recipe.task, recipe.data, recipe.seed)
    conditions = Conditions(
        spec, recipe.seed if recipe else 0, lambda _what, _done: None, task, families(spec.families)
    )
    measured: list[Measurement] = []
    for subject in subjects:
        beside = subject.file.parent  # a logged model keeps its description among extra_files
        places = (beside / "netzip.json", beside / "extra_files" / "netzip.json")
        foreign = not any(place.exists() for place in places)
        how = adapter if foreign else None
        each = measuring.inspect(subject.name, subject.file, conditions, how)
        measuring.require_shape(each, task.shape if task else (measured or [each])[0].model.shape)
        measured.append(each)
    return _Session(measured, conditions, recipe.score if recipe else ScoreSpec())


def _subjects(
    tracker: Tracker, folder: Path, uris: Sequence[str], baseline: str | None
) -> list[Subject]:
    """The models to measure with the baseline first, each name once."""
    models = [_fetch(tracker, folder / str(number), uri) for number, uri in enumerate(uris, 1)]
    if baseline is None:
        from netzip_mlflow.tracking.models import baseline_of

        made_by = models[0].run_id
        origin = baseline_of(tracker.client, made_by) if made_by else None
        if origin is None:
            raise InputError(
                Problem(
                    "--baseline", f"{uris[0]} names none in its tags", "a path, models:/ or runs:/"
                )
            )
        baseline = f"runs:/{origin}"
    first = _fetch(tracker, folder / "0", baseline)
    others = [
        m for m in models if m.uri != baseline and (m.run_id is None or m.run_id != first.run_id)
    ]
    subjects = [Subject("baseline", first.uri, first.file, first.run_id), *others]
    return _named_once(subjects)


def _named_once(subjects: Sequence[Subject]) -> list[Subject]:
    """A further subject of one name gets a number behind it: figures are kept by name."""
    unique: dict[str, Subject] = {}
    for subject in subjects:
        numbered = (f"{subject.name}-{number}" for number in itertools.count(2))
        name = next(n for n in itertools.chain([subject.name], numbered) if n not in unique)
        unique[name] = replace(subject, name=name)
    return list(unique.values())


def _file(path: str) -> Path:
    from netzip_mlflow.tracking.models import local_file

    return local_file(path)


def _stem(file: Path) -> str:
    return file.parent.name if file.name == "model.onnx" else file.stem


def _fetch(tracker: Tracker, place: Path, uri: str) -> Subject:
    from netzip_mlflow.tracking.models import model_file

    place.mkdir()
    file, run_id = model_file(uri, place)
    if run_id is not None:
        name = tracker.client.get_run(run_id).info.run_name or run_id
        return Subject(name, uri, file, run_id)
    return Subject(_stem(file), uri, file, None)


def _tags(subject: Subject, found: Measurement, baseline: str, fingerprint: str) -> dict[str, str]:
    tags = measuring.tags(found, baseline, fingerprint)
    return tags | {"netzip.device": platform.node(), "netzip.chain": subject.uri}
