"""The command `compare`: runs that are in MLflow already, by id, filter or experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from netzip_mlflow import scoring
from netzip_mlflow.errors import InputError
from netzip_mlflow.report import views
from netzip_mlflow.runs import comparison
from netzip_mlflow.runs.job import Job, Options, job, open_tracker, version_tag
from netzip_mlflow.tracking import history

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

    from netzip_mlflow.metrics.row import Row
    from netzip_mlflow.scoring import Choice

__all__ = ["compare"]


def compare(
    options: Options, runs: Sequence[str] = (), where: str = "", source: str | None = None
) -> tuple[str, list[tuple[pd.DataFrame, Choice]]]:
    """Compare runs; `source` is the experiment (name or id) to read, by default the comparison's.

    Runs with another baseline, basis, terms or fingerprint form groups of their own; each group is
    compared apart, with artifacts under `group-1/`, `group-2/`... when there are several.

    Raises:
        InputError: nothing to compare.
    """
    tracker = open_tracker(options)
    groups = history.grouped(history.read(tracker, runs, where, source))
    if not groups:
        raise InputError("nothing to compare: no finished baseline with candidates was found")
    with job("compare", "compare", options, tracker) as work:
        work.run.log(tags=version_tag())
        compared, notes = [], {}
        for number, rows in enumerate(groups, 1):
            folder = f"group-{number}" if len(groups) > 1 else ""
            frame, choice = _publish_group(work, rows, folder)
            compared.append((frame, choice))
            inside = folder and f"{folder}/"
            missing = {what: why for what, why in work.missing.items() if what.startswith(inside)}
            home = rows[0].info.experiment_id
            notes[folder] = comparison.note(choice, home, missing=missing)
        work.piece("the choice's tags", work.run.log, tags=_tags([c for _, c in compared], notes))
        return work.run.id, compared


def _tags(choices: Sequence[Choice], notes: Mapping[str, str]) -> dict[str, str]:
    """What the parent says: the choice, or of several groups that none is the best of all."""
    if len(choices) == 1:
        (choice,), (said,) = choices, notes.values()
        return {
            "netzip.best": choice.best or "",
            "netzip.reason": choice.reason,
            comparison.NOTE: said,
        }
    reason = f"{len(choices)} groups, which do not compare: each has a best of its own"
    said = "\n\n".join(f"### `{folder}/`\n\n{note}" for folder, note in notes.items())
    return {"netzip.best": "", "netzip.reason": reason, comparison.NOTE: f"{reason}\n\n{said}"}


def _publish_group(
    work: Job, rows: Sequence[MlflowRun], folder: str
) -> tuple[pd.DataFrame, Choice]:
    listed = [history.row(run) for run in rows]
    frame = pd.DataFrame([row.record() for row in listed])
    tags = rows[0].data.tags
    choice = choose(frame, rows)
    group = views.Group(
        *(
            tags.get(f"netzip.{k}", "")
            for k in ("baseline", *history.GROUPED[:2], history.GROUPED[3])
        )
    )
    title = f"{tags.get('netzip.recipe', 'runs in MLflow')} {folder}".strip()
    content = {
        "constraint": "each run's own, as it was logged",
        "machine": {"Fingerprint": tags.get("netzip.fingerprint", "")},
        "noisy": _noisy(listed),
    }
    experiment = rows[0].info.experiment_id
    comparison.pieces(
        work, frame, choice, group, title, content, folder=folder, experiment=experiment
    )
    return frame, choice


def choose(frame: pd.DataFrame, rows: Sequence[MlflowRun]) -> Choice:
    """The choice among runs that were graded when they were made; their own constraint holds."""
    metrics = {
        name: run.data.metrics
        for name, run in zip(frame["name"], rows, strict=True)
        if not history.is_baseline(run)
    }
    return scoring.best(metrics)


def _noisy(rows: Sequence[Row]) -> list[str]:
    flagged = [row.name for row in rows if "noisy" in row.flags]
    return [f"flagged noisy when measured: {', '.join(flagged)}"] if flagged else []
