"""How a search came to its best: every trial against its number, or against the time at work."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from netzip_mlflow.metrics.metric import times
from netzip_mlflow.report.style import BEST_COLOUR, INK, PAPER, RC, marker
from netzip_mlflow.report.trials import OUTCOMES, Trials

__all__ = ["History", "by_number", "by_time", "draw_history", "legend"]

_WIDTH = 6.4
_UNITS = (("hours", 3600.0, 7200.0), ("minutes", 60.0, 120.0), ("seconds", 1.0, 0.0))


class History(NamedTuple):
    """Trials along an axis; those without a figure have OCS NaN.

    `climb` is the highest OCS of the feasible ones so far at each of `x` (NaN before the first);
    `best` the position of the best feasible one, None where there is none.
    """

    axis: str
    x: np.ndarray
    numbers: tuple[int, ...]
    outcomes: tuple[str, ...]
    ocs: np.ndarray
    climb: np.ndarray
    best: int | None


def by_number(trials: Trials) -> History:
    """Every trial that has ended, by its number."""
    return _history(trials, {t.number: float(t.number) for t in trials.trials}, "Trial")


def by_time(trials: Trials) -> History:
    """Every trial that has ended, by when it ended; the clock stands still between a search and its
    resumption."""
    at = trials.seconds()
    most = max(at.values(), default=0.0)
    unit, scale, _ = next(u for u in _UNITS if most >= u[2])
    return _history(trials, {n: s / scale for n, s in at.items()}, f"Time at work, {unit}")


def _history(trials: Trials, at: dict[int, float], axis: str) -> History:
    ended = [t for t in trials.trials if t.outcome in OUTCOMES and t.number in at]
    ended.sort(key=lambda trial: (at[trial.number], trial.number))
    ocs = np.array([t.ocs if t.judged else math.nan for t in ended], dtype=float)
    feasible = np.array([t.outcome == "feasible" for t in ended], dtype=bool)
    climb = np.maximum.accumulate(np.where(feasible, ocs, -math.inf))
    numbers = tuple(t.number for t in ended)
    best = trials.best
    return History(
        axis,
        np.array([at[n] for n in numbers]),
        numbers,
        tuple(t.outcome for t in ended),
        ocs,
        np.where(np.isfinite(climb), climb, math.nan),
        numbers.index(best.number) if best is not None and best.number in at else None,
    )


def draw_history(data: History) -> Figure:
    """OCS above, the best so far as a stepped line; below, in a row for each reason, the trials
    that have no figure."""
    without = [o for o in OUTCOMES if o in data.outcomes and _unjudged(data, o).any()]
    with mpl.rc_context(RC):
        strip = 0.24 * len(without)
        figure = Figure(figsize=(_WIDTH, 3.5 + strip), layout="constrained")
        if without:
            ratios = {"height_ratios": (3.0, strip), "hspace": 0.02}
            above, below = figure.subplots(2, 1, sharex=True, gridspec_kw=ratios)
            _strip(below, data, without)
        else:
            above = below = figure.subplots()
        _climb(above, data)
        below.set_xlabel(data.axis)
        if data.axis == "Trial":
            below.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            below.set_xlim(data.x.min() - 0.7, data.x.max() + 0.7)
        else:
            below.set_xlim(0, max(data.x.max() * 1.04, 1e-9))
        against = "trial by trial" if data.axis == "Trial" else "over time"
        end = ": nothing within the constraint" if data.best is None else ""
        above.set(title=f"OCS on validation, {against}{end}", ylabel="OCS")
        above.grid(axis="y")
        line = Line2D([], [], color=BEST_COLOUR, linewidth=1.4, label="best so far")
        others = [o for i, o in enumerate(data.outcomes) if i != data.best]
        judged = [o for o in ("feasible", "infeasible") if o in others]
        found = data.best is not None
        legend(figure, judged, [line] if found else [], best=found)
    return figure


def legend(figure: Figure, outcomes: list[str], lines: list[Line2D], *, best: bool) -> None:
    """Below the axes: the best if there is one, markers by outcome, lines."""
    labels = {"best": "best on validation", **OUTCOMES}
    shown = ["best", *outcomes] if best else outcomes
    handles = [Line2D([], [], label=labels[o], **marker(o)) for o in shown]
    figure.legend(
        handles=[*handles, *lines],
        loc="outside lower center",
        ncols=len(handles) + len(lines),
        frameon=False,
        fontsize=7.5,
        handletextpad=0.4,
        columnspacing=1.2,
    )


def _unjudged(data: History, outcome: str) -> np.ndarray:
    return np.isnan(data.ocs) & np.array([o == outcome for o in data.outcomes], dtype=bool)


def _climb(axes: Axes, data: History) -> None:
    known = np.isfinite(data.climb)
    axes.step(data.x[known], data.climb[known], where="post", color=BEST_COLOUR, linewidth=1.4)
    for outcome in ("infeasible", "feasible"):
        of = ~np.isnan(data.ocs) & np.array([o == outcome for o in data.outcomes], dtype=bool)
        axes.plot(data.x[of], data.ocs[of], **marker(outcome), zorder=3)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.03 * high), high + 0.14 * (high - low))  # the baseline's is 0
    if data.best is None:
        return
    x, y = data.x[data.best], data.ocs[data.best]
    axes.plot(x, y, **marker("best"), zorder=4)
    right = x < (data.x.min() + data.x.max()) / 2
    axes.annotate(
        f"trial {data.numbers[data.best]}: {times(y)}",
        (x, y),
        xytext=(7 if right else -7, 8),
        textcoords="offset points",
        ha="left" if right else "right",
        fontsize=8,
        color=INK,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none"},
        zorder=5,
    )


def _strip(axes: Axes, data: History, outcomes: list[str]) -> None:
    for row, outcome in enumerate(outcomes):
        of = _unjudged(data, outcome)
        style: dict[str, Any] = marker(outcome) | {"markersize": 6}
        axes.plot(data.x[of], np.full(of.sum(), row), **style)
    axes.set_yticks(range(len(outcomes)), [OUTCOMES[o] for o in outcomes], fontsize=8)
    axes.set_ylim(len(outcomes) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y")
