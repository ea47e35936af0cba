"""The pictures of a comparison. Each is a pure function that returns what is drawn and a thin one
that draws it; figures are plain objects, no global state of matplotlib is touched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from netzip_mlflow.metrics.catalogue import extra, find
from netzip_mlflow.metrics.row import Row
from netzip_mlflow.report.labels import place
from netzip_mlflow.report.radar import Radar, draw_radar, radar
from netzip_mlflow.report.ranking import accuracy_key, arrange, standings
from netzip_mlflow.report.style import INK, MUTED, PAPER, RC, colour, marker

__all__ = [
    "Bars",
    "Plane",
    "Radar",
    "bars",
    "draw_bars",
    "draw_plane",
    "draw_radar",
    "figures",
    "plane",
    "radar",
    "save",
]

BARS = (
    "score/ocs",
    "ratio/P",
    "ratio/S",
    "ratio/C",
    "ratio/E",
    "ratio/its",
    "accuracy/drop_points",
    "speed/latency_ms",
    "speed/chats",
    "size/disk_bytes",
    "size/parameters",
    "size/nonzero",
    "size/ram_bytes",
    "energy/joules",
    "fidelity/agreement",
)
_LOG_FROM = 8.0
_LEAST_SPREAD = 0.02  # of an accuracy: closer together, two points still count as a spread
_WIDTH = 6.4
MOST_BARS, MOST_NAMES, MOST_BELOW = 40, 30, 4  # models that a picture has room for
_ASIDE: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 7.5, "color": MUTED}
_DASHES = (0, (5, 2))


class Bars(NamedTuple):
    """One metric over the models, in the order of the table. `lows` and `highs` may be NaN.

    `left_out` counts the models beyond the first `MOST_BARS`.
    """

    metric: str
    names: tuple[str, ...]
    standings: tuple[str, ...]
    values: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    left_out: int = 0


class Plane(NamedTuple):
    """Accuracy over another metric, with intervals and the Pareto front.

    `y_lows` and `y_highs` are those of the paired difference from the baseline; `front` marks the
    models that no other equals or betters in both (by their values, not their intervals); `below`
    marks those so far below the others that they are shown at the lower edge.
    """

    x_metric: str
    y_metric: str
    names: tuple[str, ...]
    standings: tuple[str, ...]
    x: np.ndarray
    x_lows: np.ndarray
    x_highs: np.ndarray
    y: np.ndarray
    y_lows: np.ndarray
    y_highs: np.ndarray
    front: np.ndarray
    below: np.ndarray


def bars(frame: pd.DataFrame, metric: str, *, best: str | None = None) -> Bars:
    """The bars of one metric; models without it are left out.

    Raises:
        NetzipError: for a frame that cannot be arranged (`standing.arrange`).
    """
    parts = arrange(frame)
    held = [row for row in parts.measured if row.metrics.get(metric) is not None]
    rows = held[:MOST_BARS]
    kinds = standings(parts, best)
    names = tuple(row.name for row in rows)
    return Bars(
        metric,
        names,
        tuple(kinds[name] for name in names),
        _column(rows, metric),
        _column(rows, f"{metric}_low"),
        _column(rows, f"{metric}_high"),
        len(held) - len(rows),
    )


def plane(frame: pd.DataFrame, x_metric: str, *, best: str | None = None) -> Plane:
    """Accuracy against `x_metric` (less of it is better); models without either are left out."""
    parts = arrange(frame)
    y_metric = accuracy_key(parts.measured)
    rows = [
        row
        for row in parts.measured
        if row.metrics.get(x_metric) is not None and row.metrics.get(y_metric) is not None
    ]
    kinds = standings(parts, best)
    names = tuple(row.name for row in rows)
    x, y = _column(rows, x_metric), _column(rows, y_metric)
    lost = _column(rows, "accuracy/drop_points")
    return Plane(
        x_metric,
        y_metric,
        names,
        tuple(kinds[name] for name in names),
        x,
        _column(rows, f"{x_metric}_low"),
        _column(rows, f"{x_metric}_high"),
        y,
        y + (lost - _column(rows, "accuracy/drop_points_high")) / 100,
        y + (lost - _column(rows, "accuracy/drop_points_low")) / 100,
        _front(x, y),
        _below(y, [kinds[name] for name in names]),
    )


def figures(frame: pd.DataFrame, *, best: str | None = None) -> dict[str, Figure]:
    """Every picture that this frame has the figures for, by the name of its file.

    A bar plot is left out when only the baseline has the metric.
    """
    found: dict[str, Figure] = {}
    for metric, name in (
        ("speed/latency_ms", "accuracy_latency"),
        ("size/disk_bytes", "accuracy_size"),
    ):
        data = plane(frame, metric, best=best)
        if len(data.names) > 1:
            found[name] = draw_plane(data)
    wheel = radar(frame, best=best)
    if wheel.names:
        found["radar"] = draw_radar(wheel)
    accuracy = accuracy_key(arrange(frame).measured)
    for metric in dict.fromkeys((accuracy, *BARS, *extra(frame.columns))):
        column = bars(frame, metric, best=best)
        if len(column.names) > 1:
            found["bars_" + metric.replace("/", "_")] = draw_bars(column)
    return found


def draw_bars(data: Bars) -> Figure:
    """Horizontal bars with their values; a line at the baseline's value; whiskers: 95 %."""
    what = find(data.metric)
    with mpl.rc_context(RC):
        figure = Figure(figsize=(_WIDTH, 0.85 + 0.3 * len(data.names)), layout="constrained")
        axes = figure.subplots()
        values, at = data.values / what.scale, np.arange(len(data.names))
        drawn = axes.barh(at, values, height=0.68, color=[colour(s) for s in data.standings])
        for patch, standing in zip(drawn, data.standings, strict=True):
            if standing == "infeasible":
                patch.set(hatch="////", edgecolor=PAPER, linewidth=0)
        low, high = data.lows / what.scale, data.highs / what.scale
        known = np.isfinite(low) & np.isfinite(high)
        axes.hlines(at[known], low[known], high[known], color=INK, linewidth=1.3)
        if "baseline" in data.standings:
            reference = values[data.standings.index("baseline")]
            axes.axvline(reference, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        _values(axes, data, what.show, np.where(known, high, values))
        axes.set_yticks(at, _marked(data.names, data.standings))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set(title=what.title(), xlabel=what.unit)
        if data.left_out:
            said = f"{data.left_out} further models are not drawn: see comparison.csv"
            figure.supxlabel(said, fontsize=7.5, color=MUTED, x=0.01, ha="left")
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
    return figure


def draw_plane(data: Plane) -> Figure:
    """Points with 95 % whiskers, labelled; the Pareto front as a stepped line."""
    over, quality = find(data.x_metric), find(data.y_metric)
    with mpl.rc_context(RC):
        figure = Figure(figsize=(_WIDTH, 4.3), layout="constrained")
        axes = figure.subplots()
        x, y = data.x / over.scale, data.y / quality.scale
        logarithmic = bool(np.min(data.x) > 0 and np.max(data.x) / np.min(data.x) >= _LOG_FROM)
        if logarithmic:
            axes.set_xscale("log")
        _pareto(axes, x[data.front], y[data.front])
        _points(axes, data, x, y)
        _frame(axes, data, x, logarithmic=logarithmic)
        scale = ", log scale" if logarithmic else ""
        axes.set(
            title=f"{quality.label} against {over.label[0].lower()}{over.label[1:]}",
            xlabel=f"{over.axis()}{scale}",
            ylabel=quality.axis(),
        )
        axes.grid(visible=True)
        edge = data.below
        axes.plot(x[edge], _lifted(axes, y, edge)[edge], **marker("below"))
        _legend(figure, data.standings)
        names = _marked(data.names, data.standings)
        names = [
            f"{name}, {quality.show(value)} ↓" if below else name
            for name, value, below in zip(names, data.y, data.below, strict=True)
        ]
        named = _named(data.below)
        if not named.all():
            said = f"{np.sum(~named)} models without a name: see the table"
            axes.text(0.99, 0.99, said, transform=axes.transAxes, **_ASIDE)
        lifted = _lifted(axes, y, data.below)
        place(figure, axes, x[named], lifted[named], [names[i] for i in np.flatnonzero(named)])
    return figure


def _named(below: np.ndarray) -> np.ndarray:
    """Which models have room for their names: the first of the table, and few at the lower edge."""
    named = np.arange(len(below)) < MOST_NAMES
    return named & ~below if below.sum() > MOST_BELOW else named


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .svg or .png (by the suffix); the same figure gives the same bytes."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    stamps = {"Date": None} if target.suffix == ".svg" else {"Software": None}
    with mpl.rc_context({**RC, "svg.fonttype": "none", "svg.hashsalt": "netzip"}):
        figure.savefig(target, dpi=160, metadata=stamps)
    return target


def _column(rows: Sequence[Row], key: str) -> np.ndarray:
    found = [row.metrics.get(key) for row in rows]
    return np.array([math.nan if v is None else v for v in found], dtype=float)


def _pareto(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    order = np.argsort(x)
    style = {"color": MUTED, "linewidth": 1.1, "linestyle": _DASHES}
    axes.step(x[order], y[order], where="post", zorder=1, **style)


def _points(axes: Axes, data: Plane, x: np.ndarray, y: np.ndarray) -> None:
    over, quality = find(data.x_metric).scale, find(data.y_metric).scale
    for i, standing in enumerate(data.standings):
        if data.below[i]:
            continue
        shade = colour(standing)
        across = (data.x_lows[i] / over, data.x_highs[i] / over)
        if np.isfinite(across).all():
            axes.hlines(y[i], *across, color=shade, linewidth=1.2, zorder=2)
        along = (data.y_lows[i] / quality, data.y_highs[i] / quality)
        if np.isfinite(along).all():
            axes.vlines(x[i], *along, color=shade, linewidth=1.2, zorder=2)
        axes.plot(x[i], y[i], **marker(standing), zorder=3)


def _lifted(axes: Axes, y: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The heights at which points are drawn: those far below stand just above the lower edge."""
    low, high = axes.get_ylim()
    return np.where(below, low + 0.03 * (high - low), y)


def _front(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points no other equals or betters in both: less x, more y (of equals: all)."""
    better = (x[None] <= x[:, None]) & (y[None] >= y[:, None])
    strictly = (x[None] < x[:, None]) | (y[None] > y[:, None])
    return np.logical_not((better & strictly).any(axis=1))


def _below(y: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Infeasible models further down than twice the spread of what lies above them.

    One dead model would else press all the others into a line.
    """
    below = np.zeros(len(y), dtype=bool)
    for at in np.argsort(-y, kind="stable"):
        above = y[y > y[at]]
        if kinds[at] != "infeasible" or above.size == 0:
            continue
        spread = max(float(np.ptp(above)), _LEAST_SPREAD)
        below[at] = below[y > y[at]].any() or above.min() - y[at] > 2 * spread
    return below


def _marked(names: Sequence[str], standings: Sequence[str]) -> list[str]:
    return [f"★ {n}" if s == "best" else n for n, s in zip(names, standings, strict=True)]


def _values(axes: Axes, data: Bars, show: Any, ends: np.ndarray) -> None:
    """Print each value behind its bar, and leave room for it."""
    tips = np.maximum(ends, 0)
    span = max(float(np.max(tips)) - min(0.0, float(np.min(data.values))), 1e-12)
    for at, (value, tip) in enumerate(zip(data.values, tips, strict=True)):
        axes.annotate(
            show(value),
            (tip, at),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none"},
        )
    low, high = axes.get_xlim()
    axes.set_xlim(low, max(high, float(np.max(tips)) + 0.13 * span))


def _frame(axes: Axes, data: Plane, x: np.ndarray, *, logarithmic: bool) -> None:
    """Limits with room for labels, on the accuracy's side without the models far below."""
    if logarithmic:
        axes.set_xlim(np.min(x) / 1.6, np.max(x) * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, np.max(x) * 1.12)
    inside = ~data.below
    known = np.concatenate([a[inside] for a in (data.y, data.y_lows, data.y_highs)])
    known = known[np.isfinite(known)] / find(data.y_metric).scale
    room = max(0.12 * float(np.ptp(known)), 0.05)
    axes.set_ylim(np.min(known) - (2 if data.below.any() else 1) * room, np.max(known) + room)


def _legend(figure: Figure, standings: Sequence[str]) -> None:
    handles = [
        Line2D([], [], label=label, **marker(standing))
        for standing, label in (
            ("baseline", "baseline"),
            ("best", "best on validation"),
            ("feasible", "within the constraint"),
            ("infeasible", "outside the constraint"),
        )
        if standing in standings
    ]
    line = Line2D([], [], color=MUTED, linewidth=1.1, linestyle=_DASHES)
    line.set_label("Pareto front")
    figure.legend(
        handles=[*handles, line],
        loc="outside lower center",
        ncols=len(handles) + 1,
        frameon=False,
        fontsize=7.5,
        handletextpad=0.3,
        columnspacing=1.0,
    )
