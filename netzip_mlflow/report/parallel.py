"""Every judged trial as a line through its parameters to its OCS."""

from __future__ import annotations

import math
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from netzip_mlflow.report.dimension import Dimension, shorten
from netzip_mlflow.report.history import legend
from netzip_mlflow.report.style import BEST_COLOUR, INFEASIBLE_COLOUR, INK, MUTED, PAPER, RC, marker
from netzip_mlflow.report.trials import Trials

__all__ = ["Parallel", "draw_parallel", "parallel"]

_ABSENT = -0.16  # where a line passes an axis that its chain does not have
_HEAD = (17, 3)  # characters and lines over an axis
_DASHES = (0, (4, 2))


class Parallel(NamedTuple):
    """Lines over axes: the parameters, then OCS. `places` (trials, axes), from 0 to 1, NaN where a
    trial does not have the parameter."""

    dimensions: tuple[Dimension, ...]
    places: np.ndarray
    ocs: np.ndarray
    standings: tuple[str, ...]


def parallel(trials: Trials, names: list[str]) -> Parallel:
    """The judged trials, the best last, so that it lies on top."""
    best = trials.best
    rows = sorted(trials.judged, key=lambda t: (t is best, t.outcome == "feasible", t.ocs or 0.0))
    ocs = np.array([t.ocs for t in rows], dtype=float)
    score = Dimension("OCS", float(ocs.min()), float(ocs.max())) if rows else Dimension("OCS")
    dimensions = [Dimension.of(name, trials.varied[name]) for name in names]
    places = [
        [
            *(d.place(t.parameters[d.name]) if d.name in t.parameters else math.nan
              for d in dimensions),
            score.place(t.ocs),
        ]
        for t in rows
    ]  # fmt: skip
    return Parallel(
        (*dimensions, score),
        np.array(places, dtype=float).reshape(len(rows), len(dimensions) + 1),
        ocs,
        tuple("best" if t is best else t.outcome for t in rows),
    )


def draw_parallel(data: Parallel) -> Figure:
    """Feasible trials as lines in the colour of their OCS, the others grey and dashed."""
    width = max(6.4, 1.5 * len(data.dimensions))
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width, 4.6), layout="constrained")
        axes = figure.subplots()
        feasible = np.array([s != "infeasible" for s in data.standings], dtype=bool)
        shade = mpl.colormaps["viridis_r"]
        among = data.ocs[feasible] if feasible.any() else data.ocs
        scale = Normalize(float(among.min()), float(among.max()))
        _lines(axes, data, shade, scale)
        absent = bool(np.isnan(data.places).any())
        for at, dimension in enumerate(data.dimensions):
            _axis(axes, at, dimension, absent=absent)
        if absent:
            axes.text(
                -0.12, _ABSENT, "not in\nthe chain", ha="right", va="center", fontsize=7.5,
                color=MUTED,
            )  # fmt: skip
        axes.set_xlim(-0.35 if absent else -0.15, len(data.dimensions) - 0.45)
        axes.set_ylim(_ABSENT - 0.08 if absent else -0.06, 1.06)
        axes.set_axis_off()
        above = max(shorten(d.label, *_HEAD).count("\n") for d in data.dimensions)
        title = "Parameters and OCS on validation of every judged trial"
        axes.set_title(title, pad=30 + 11 * above)
        if feasible.sum() > 1 and scale.vmin != scale.vmax:
            bar = figure.colorbar(ScalarMappable(scale, shade), ax=axes, fraction=0.03, pad=0.01)
            bar.set_label("OCS within the constraint", fontsize=8)
            bar.outline.set_visible(False)  # type: ignore[operator]  (the stubs call it a Spine)
        grey = {"color": INFEASIBLE_COLOUR, "linewidth": 1.0, "linestyle": _DASHES}
        lines = [Line2D([], [], label="outside the constraint", **grey)]
        found = "best" in data.standings
        legend(figure, [], lines if not feasible.all() else [], best=found)
    return figure


def _lines(axes: Axes, data: Parallel, shade: Colormap, scale: Normalize) -> None:
    across = np.arange(len(data.dimensions))
    heights = np.where(np.isnan(data.places), _ABSENT, data.places)
    for line, value, standing in zip(heights, data.ocs, data.standings, strict=True):
        if standing == "best":
            axes.plot(across, line, color=PAPER, linewidth=5.0, zorder=3)
            axes.plot(across, line, color=BEST_COLOUR, linewidth=2.6, zorder=4)
            axes.plot(across[-1], line[-1], **marker("best"), zorder=6, clip_on=False)
        elif standing == "feasible":
            axes.plot(across, line, color=shade(scale(value)), linewidth=1.2, alpha=0.85, zorder=2)
        else:
            style = {"color": INFEASIBLE_COLOUR, "linestyle": _DASHES, "linewidth": 1.0}
            axes.plot(across, line, alpha=0.8, zorder=1, **style)


def _axis(axes: Axes, at: int, dimension: Dimension, *, absent: bool) -> None:
    axes.vlines(at, _ABSENT if absent else 0.0, 1.0, color=MUTED, linewidth=0.8, zorder=2)
    box = {"boxstyle": "square,pad=0.12", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.85}
    for height, text in dimension.ticks():
        axes.plot([at - 0.02, at + 0.02], [height, height], color=MUTED, linewidth=0.8, zorder=2)
        axes.text(
            at + 0.04, height, shorten(text, 15), fontsize=7.5, va="center", color=INK, bbox=box,
            zorder=5,
        )  # fmt: skip
    axes.text(
        at, 1.09, shorten(dimension.label, *_HEAD), fontsize=8, ha="center", va="bottom",
        color=INK,
    )  # fmt: skip
