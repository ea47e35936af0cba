"""Evaluating in Python: deployables in, a table of every metric out, no tracking server needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from netzip_mlflow import folders, measuring, scoring
from netzip_mlflow.errors import InputError
from netzip_mlflow.metrics.catalogue import families
from netzip_mlflow.metrics.family import Conditions
from netzip_mlflow.recipe import MeasureSpec, ScoreSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from netzip_mlflow.deployable import Deployable
    from netzip_mlflow.tasks import Task

__all__ = ["evaluate", "visualise"]


def evaluate(
    deployables: Mapping[str, Deployable],
    task: Task,
    *,
    measure: MeasureSpec | None = None,
    score: ScoreSpec | None = None,
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda _what, _done: None,
) -> pd.DataFrame:
    """Measure, time and score deployables together; the first one is the baseline.

    Returns:
        One row per model; columns are the metric keys that `netzip list metrics` explains, and the
        texts name, kind, chain, status, verdict, reasons, flags.

    Raises:
        InputError: fewer than one deployable, or one that does not fit the task's data.
    """
    import pandas as pd

    if not deployables:
        raise InputError("evaluate: no deployable given; the first one is the baseline")
    measure, score = measure or MeasureSpec(), score or ScoreSpec()
    conditions = Conditions(measure, seed, progress, task, families(measure.families))
    basis = scoring.Basis.from_spec(score, task.primary)
    limits = scoring.Constraints.from_spec(score)
    with folders.temporary() as folder:
        measured = [
            measuring.inspect(name, deployable.save(folder / name), conditions)
            for name, deployable in deployables.items()
        ]
        measuring.measure_together(measured, conditions, basis, limits)
    rows = [
        measuring.row(
            each,
            "baseline" if each is measured[0] else "candidate",
            chain="+".join(deployables[each.name].manifest["chain"]) or "fp32",
        )
        for each in measured
    ]
    return pd.DataFrame([row.record() for row in rows])


def visualise(frame: pd.DataFrame, folder: str | Path | None = None) -> dict[str, Figure]:
    """The comparison's pictures of a frame as `evaluate` gives it; saved as PNG with `folder`."""
    from netzip_mlflow.report import plots

    candidates = {
        row["name"]: {k: v for k, v in row.items() if isinstance(v, float) and v == v}  # noqa: PLR0124 (NaN)
        for row in frame.to_dict("records")
        if row["kind"] != "baseline"
    }
    best = scoring.best(candidates).best
    figures = plots.figures(frame, best=best)
    if folder is not None:
        for name, figure in figures.items():
            plots.save(figure, Path(folder) / f"{name}.png")
    return figures
