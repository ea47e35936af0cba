"""OCS against each parameter that a search varied, one small picture each."""

from __future__ import annotations

import math
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from netzip_mlflow.report.dimension import Dimension, shorten
from netzip_mlflow.report.history import legend
from netzip_mlflow.report.style import INK, RC, marker
from netzip_mlflow.report.trials import Trials

__all__ = ["Slice", "draw_slices", "slices"]

_COLUMNS = 3


class Slice(NamedTuple):
    """One parameter: `x` from 0 to 1 along its dimension, for the judged trials that have it."""

    dimension: Dimension
    x: np.ndarray
    ocs: np.ndarray
    standings: tuple[str, ...]


def slices(trials: Trials, names: list[str]) -> list[Slice]:
    """A slice for each parameter; trials in which it does not stand are left out of it."""
    best = trials.best
    found = []
    for name in names:
        rows = [t for t in trials.judged if name in t.parameters]
        dimension = Dimension.of(name, trials.varied[name])
        found.append(
            Slice(
                dimension,
                np.array([dimension.place(t.parameters[name]) for t in rows]),
                np.array([t.ocs for t in rows], dtype=float),
                tuple("best" if t is best else t.outcome for t in rows),
            )
        )
    return found


def draw_slices(data: list[Slice]) -> Figure:
    """All on one scale of OCS."""
    columns = min(_COLUMNS, len(data))
    lines = math.ceil(len(data) / columns)
    with mpl.rc_context(RC):
        figure = Figure(figsize=(max(4.2, 2.7 * columns), 0.5 + 2.15 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, each in zip(grid.flat, data, strict=False):
            _slice(axes, each)
        for axes in list(grid.flat)[len(data) :]:
            axes.remove()
        for row in grid:
            row[0].set_ylabel("OCS")
        figure.suptitle(
            "OCS on validation against each parameter",
            x=0.01,
            ha="left",
            fontsize=10,
            weight="bold",
        )
        seen = {s for each in data for s in each.standings}
        shown = [s for s in ("feasible", "infeasible") if s in seen]
        legend(figure, shown, [], best="best" in seen)
    return figure


def _slice(axes: Axes, data: Slice) -> None:
    for standing in ("infeasible", "feasible", "best"):
        of = np.array([s == standing for s in data.standings], dtype=bool)
        axes.plot(data.x[of], data.ocs[of], **marker(standing), zorder=3)
    ticks = data.dimension.ticks()
    many = data.dimension.choices is not None and len(ticks) > 3
    texts = [shorten(text, 14 if many else max(8, 30 // len(ticks)), 1 if many else 2)
             for _, text in ticks]  # fmt: skip
    axes.xaxis.set_major_locator(FixedLocator([at for at, _ in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(
        texts, fontsize=7.5, rotation=30 if many else 0, ha="right" if many else "center"
    )
    axes.set_xlim(-0.06, 1.06)
    axes.margins(y=0.12)
    axes.set_xlabel(shorten(data.dimension.label, 34), fontsize=8, color=INK)
    axes.grid(visible=True)
