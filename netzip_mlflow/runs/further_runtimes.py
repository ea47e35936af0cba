"""What further runtimes make of the files that were measured, on the parent run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from netzip_mlflow import measuring
from netzip_mlflow.metrics.across_runtimes import NOT_TIMED
from netzip_mlflow.report import sheet

if TYPE_CHECKING:
    from netzip_mlflow.measuring import Measurement
    from netzip_mlflow.metrics.family import Conditions
    from netzip_mlflow.runs.job import Job

__all__ = ["compare_runtimes"]


def compare_runtimes(work: Job, measured: Sequence[Measurement], conditions: Conditions) -> None:
    """`runtimes.csv` and the tag `netzip.runtimes`, where the recipe names more than one runtime.

    The job goes on without what cannot be had: all that scores is measured.
    """
    scoring, *others = conditions.spec.runtimes
    if not others:
        return
    work.say(f"running {len(measured)} models in {', '.join(others)}, beside {scoring}")
    work.piece("runtimes.csv", _measure, work, measured, conditions)
    said = f"{scoring} (scores), {', '.join(others)} (runtimes.csv)"
    work.piece("the tag of runtimes", work.run.log, tags={"netzip.runtimes": said})


def _measure(work: Job, measured: Sequence[Measurement], conditions: Conditions) -> None:
    measuring.run_elsewhere(measured, replace(conditions, progress=work.progress))
    rows = [row for each in measured for row in each.elsewhere]
    for row in rows:
        if row.absent not in ("", NOT_TIMED):
            work.say(f"{row.model} in {row.runtime}: {row.absent}")
    cells = [row.cells() for row in rows]
    work.run.artifact(sheet.write(work.folder / "runtimes.csv", cells))
