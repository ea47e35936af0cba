"""Measuring: models made anywhere, on this machine, all interleaved with one baseline."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.recipe import MeasureSpec, ScoreSpec
from netzip_mlflow.stages import measurement
from netzip_mlflow.stages.job import Job, Options, job, open_tracker, version_tag

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runtimes.onnxruntime import Adapter
    from netzip_mlflow.stages.measurement import Measurement
    from netzip_mlflow.tracking import Run, Tracker

__all__ = ["Subject", "measure"]


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
    threads: int | None = None,
) -> list[tuple[Subject, Measurement]]:
    """Time all models together, the baseline first; with a recipe, their accuracy and score too.

    Args:
        uris: `models:/...`, `runs:/...`, or paths of ONNX files.
        baseline: the same; by default the one that the first model's tags name.
        recipe: gives data, and how to measure and to score.
        adapter: how files of other tools (without a `netzip.json` beside them) want their input.

    Raises:
        InputError: a model that cannot be fetched or read, no baseline, models of several tasks.
    """
    tracker = open_tracker(options)
    spec = recipe.measure if recipe else MeasureSpec()
    if threads is not None:
        spec = spec.model_copy(update={"threads": threads})
    score = recipe.score if recipe else ScoreSpec()
    task = None
    if recipe is not None:
        from netzip_mlflow.tasks import open_task

        task = open_task(recipe.task, recipe.data, recipe.seed)
    with job("measure", "measure", options, tracker) as work:
        subjects = _subjects(work, tracker, uris, baseline)
        work.run.log(tags=version_tag())
        found: list[Measurement] = []
        for subject in subjects:
            foreign = not (subject.file.parent / "netzip.json").exists()
            each = measurement.inspect(
                subject.name, subject.file, spec, adapter if foreign else None
            )
            found.append(each)
            if task is not None and recipe is not None:
                first = found[0] if len(found) > 1 else None
                splits = ("validation", "test")
                measurement.judge(each, first, task, splits, spec, recipe.seed, work.progress)
        measurement.clock(found, spec, recipe.seed if recipe else 0, work.progress)
        _, fingerprint = work.fingerprint(spec.threads, found[0].path)
        origin: Run | None = None
        for subject, each in zip(subjects, found, strict=True):
            measurement.grade(each, found[0], score)
            run = work.run.child("measurement", subject.name, below=subject.run_id)
            origin = origin or run
            run.log(each.metrics, tags=_tags(subject, each, origin.id, fingerprint))
            run.end("FINISHED")
        return list(zip(subjects, found, strict=True))


def _subjects(
    work: Job, tracker: Tracker, uris: Sequence[str], baseline: str | None
) -> list[Subject]:
    """The models to measure with the baseline first, each name once."""
    models = [_fetch(work, uri, number) for number, uri in enumerate(uris, 1)]
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
    first = _fetch(work, baseline, 0)
    others = [
        m for m in models if m.uri != baseline and (m.run_id is None or m.run_id != first.run_id)
    ]
    subjects = [Subject("baseline", first.uri, first.file, first.run_id), *others]
    named: dict[str, int] = {}
    unique = []
    for subject in subjects:
        named[subject.name] = named.get(subject.name, 0) + 1
        count = named[subject.name]
        name = subject.name if count == 1 else f"{subject.name}-{count}"
        unique.append(Subject(name, subject.uri, subject.file, subject.run_id))
    return unique


def _fetch(work: Job, uri: str, number: int) -> Subject:
    from netzip_mlflow.tracking.models import model_file

    place = work.folder / str(number)
    place.mkdir()
    file, run_id = model_file(uri, place)
    if run_id is not None:
        name = work.run.client.get_run(run_id).info.run_name or run_id
        return Subject(name, uri, file, run_id)
    name = file.parent.name if file.name == "model.onnx" else file.stem
    return Subject(name, uri, file, None)


def _tags(subject: Subject, found: Measurement, baseline: str, fingerprint: str) -> dict[str, Any]:
    tags = {
        "netzip.baseline": baseline,
        "netzip.device": platform.node(),
        "netzip.fingerprint": fingerprint,
        "netzip.flags": ",".join(found.flags),
        "netzip.facts": json.dumps(found.facts),
        "netzip.chain": subject.uri,
    }
    if found.basis is not None:
        tags |= {"netzip.basis": found.basis.label(), "netzip.terms": found.terms}
    if found.verdict is not None:
        tags |= {
            "netzip.verdict": found.verdict.grade,
            "netzip.reason": "\n".join(found.verdict.reasons),
        }
    return tags
