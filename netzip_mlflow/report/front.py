"""What a search had to choose from: the drop of accuracy against what was gained by it."""

from __future__ import annotations

from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from netzip_mlflow.metrics.catalogue import find
from netzip_mlflow.report.history import legend
from netzip_mlflow.report.labels import place
from netzip_mlflow.report.style import INK, MUTED, RC, marker
from netzip_mlflow.report.trials import Trials

__all__ = ["Front", "draw_front", "front"]

_DASHES = (0, (5, 2))
_FAR = 4.0  # times the limit (or 2 points): a drop of more stands at the edge
_NAMED = 8


class Front(NamedTuple):
    """Judged trials in a plane. `front` marks the feasible ones that no other feasible one equals
    or betters in both; `limit` is the drop that may be, in points."""

    ratio: str
    numbers: tuple[int, ...]
    outcomes: tuple[str, ...]
    x: np.ndarray
    drop: np.ndarray
    front: np.ndarray
    best: int | None
    limit: float


def front(trials: Trials, ratio: str, limit: float) -> Front:
    """The drop in points against `S` or `C`; trials without either are left out."""
    rows = [t for t in trials.judged if t.drop is not None and ratio in t.ratios]
    x = np.array([t.ratios[ratio] for t in rows], dtype=float)
    drop = np.array([t.drop for t in rows], dtype=float)
    feasible = np.array([t.outcome == "feasible" for t in rows], dtype=bool)
    better = (x[None] >= x[:, None]) & (drop[None] <= drop[:, None])
    strictly = (x[None] > x[:, None]) | (drop[None] < drop[:, None])
    beaten = (better & strictly & feasible[None]).any(axis=1)
    numbers = tuple(t.number for t in rows)
    best = trials.best
    return Front(
        ratio,
        numbers,
        tuple(t.outcome for t in rows),
        x,
        drop,
        feasible & ~beaten,
        numbers.index(best.number) if best is not None and best.number in numbers else None,
        limit,
    )


def draw_front(data: Front) -> Figure:
    """The drop upwards from bad to good, the ratio to the right; the limit as a line. Trials far
    outside stand at the lower edge."""
    gain = find(f"ratio/{data.ratio}")
    with mpl.rc_context(RC):
        figure = Figure(figsize=(6.4, 4.3), layout="constrained")
        axes = figure.subplots()
        far = data.drop > max(_FAR * data.limit, data.limit + 2)
        logarithmic = bool(data.x.min() > 0 and data.x.max() / data.x.min() >= 8)
        if logarithmic:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _points(axes, data, far)
        _limits(axes, data, far, logarithmic=logarithmic)
        scale = ", log scale" if logarithmic else ""
        axes.set(
            title=f"Drop of accuracy against {gain.label.partition(', ')[2]}",
            xlabel=f"{gain.label}{scale} (more is better)",
            ylabel="Drop on validation, points (less is better)",
        )
        axes.grid(visible=True)
        lines = [Line2D([], [], color=MUTED, linewidth=1.0, linestyle=":", label="limit")]
        if data.front.any():
            style = {"color": INK, "linewidth": 1.1, "linestyle": _DASHES}
            lines.append(Line2D([], [], label="Pareto front", **style))
        others = [o for i, o in enumerate(data.outcomes) if i != data.best]
        shown = [o for o in ("feasible", "infeasible") if o in others]
        legend(figure, shown, lines, best=data.best is not None)
        _names(figure, axes, data)
    return figure


def _points(axes: Axes, data: Front, far: np.ndarray) -> None:
    order = np.argsort(data.x[data.front])
    axes.step(
        data.x[data.front][order],
        data.drop[data.front][order],
        where="pre",
        color=INK,
        linewidth=1.1,
        linestyle=_DASHES,
        zorder=1,
    )
    axes.axhline(data.limit, color=MUTED, linewidth=1.0, linestyle=":", zorder=1)
    for outcome in ("infeasible", "feasible"):
        of = np.array([o == outcome for o in data.outcomes], dtype=bool) & ~far
        axes.plot(data.x[of], data.drop[of], **marker(outcome), zorder=3)
    if data.best is not None:
        axes.plot(data.x[data.best], data.drop[data.best], **marker("best"), zorder=4)


def _limits(axes: Axes, data: Front, far: np.ndarray, *, logarithmic: bool) -> None:
    near = np.concatenate([data.drop[~far], [data.limit, 0.0]])
    room = max(0.1 * float(np.ptp(near)), 0.1)
    lowest = near.max() + (3 if far.any() else 1) * room
    axes.set_ylim(lowest, near.min() - room)
    if logarithmic:
        axes.set_xlim(data.x.min() / 1.2, data.x.max() * 1.25)
    else:
        span = max(float(np.ptp(data.x)), 0.5 * float(data.x.max()))
        axes.set_xlim(data.x.min() - 0.08 * span, data.x.max() + 0.1 * span)
    if far.any():
        axes.plot(data.x[far], np.full(far.sum(), lowest - 0.6 * room), **marker("below"))
        least, most = (f"{f(data.drop[far]):.1f}" for f in (np.min, np.max))
        span = least if least == most else f"{least} to {most}"
        axes.text(
            0.01,
            0.06,
            f"▼ further down: {span} points",
            transform=axes.transAxes,
            fontsize=7.5,
            color=MUTED,
        )


def _names(figure: Figure, axes: Axes, data: Front) -> None:
    """The numbers of the trials on the front: the best, and those with the largest ratios."""
    at = [i for i in np.argsort(-data.x) if data.front[i] and i != data.best]
    chosen = ([] if data.best is None else [data.best]) + at[:_NAMED]
    if chosen:
        names = [f"trial {data.numbers[i]}" for i in chosen]
        place(figure, axes, data.x[chosen], data.drop[chosen], names)
