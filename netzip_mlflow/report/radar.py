"""P, S, C, E and OCS of every candidate as small radars on one shared, linear scale."""

from __future__ import annotations

import math
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from matplotlib.ticker import MaxNLocator

from netzip_mlflow.report.ranking import arrange, standings
from netzip_mlflow.report.style import BASELINE_COLOUR, GRID, INK, MUTED, PAPER, RC, colour

__all__ = ["Radar", "draw_radar", "radar"]

AXES = {
    "P": "ratio/P",
    "S": "ratio/S",
    "C": "ratio/C",
    "E": "ratio/E",
    "OCS": "score/ocs",
}
MOST = 12
_COLUMNS = 4


class Radar(NamedTuple):
    """Axes that every candidate has, and their values (candidates, axes).

    `low` and `high` are the shared scale's ends; `left_out` counts the candidates beyond the first
    `MOST` of the table.
    """

    axes: tuple[str, ...]
    names: tuple[str, ...]
    standings: tuple[str, ...]
    values: np.ndarray
    low: float
    high: float
    left_out: int


def radar(frame: pd.DataFrame, *, best: str | None = None) -> Radar:
    """The candidates' terms and OCS; an axis that one of them lacks is left out for all."""
    parts = arrange(frame)
    rows = [row for row in parts.candidates if row.metrics.get(AXES["OCS"]) is not None]
    shown = rows[:MOST]
    axes = tuple(
        name
        for name, key in AXES.items()
        if shown and all(row.metrics.get(key) is not None for row in shown)
    )
    values = np.array([[row.metrics[AXES[name]] for name in axes] for row in shown])
    kinds = standings(parts, best)
    names = tuple(row.name for row in shown)
    return Radar(
        axes,
        names,
        tuple(kinds[name] for name in names),
        values.reshape(len(shown), len(axes)),
        min(0.0, math.floor(values.min())) if values.size else 0.0,
        max(2.0, math.ceil(values.max())) if values.size else 2.0,
        len(rows) - len(shown),
    )


def draw_radar(data: Radar) -> Figure:
    """One small radar per candidate, the others behind it in grey, the ring at 1 dashed."""
    columns = min(_COLUMNS, len(data.names))
    rows = math.ceil(len(data.names) / columns)
    with mpl.rc_context(RC):
        figure = Figure(figsize=(6.4, 1.85 * rows + 0.6), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for panel in grid.flat:
            panel.axis("off")
        for at, panel in enumerate(grid.flat[: len(data.names)]):
            _panel(panel, data, at)
        figure.suptitle(
            "Terms and OCS, one scale for all", x=0.01, ha="left", fontsize=10, fontweight="bold"
        )
        figure.supxlabel(_note(data), fontsize=7.5, color=MUTED, x=0.01, ha="left")
    return figure


def _panel(panel: Axes, data: Radar, at: int) -> None:
    reach = data.high - data.low
    panel.set(xlim=(-1.36, 1.36), ylim=(-1.22, 1.22), aspect="equal")
    ticks = np.array(MaxNLocator(3, integer=True).tick_values(data.low, data.high))
    for tick in ticks[(ticks > data.low) & (ticks < data.high)]:
        panel.add_patch(Circle((0, 0), (tick - data.low) / reach, fill=False, ec=GRID, lw=0.7))
    panel.add_patch(Circle((0, 0), 1, fill=False, ec=GRID, lw=1.0))
    spokes = _directions(len(data.axes))
    for (x, y), name in zip(spokes, data.axes, strict=True):
        panel.plot([0, x], [0, y], color=GRID, linewidth=0.7, zorder=1)
        panel.text(1.2 * x, 1.14 * y, name, ha="center", va="center", fontsize=7.5, color=MUTED)
    scaled = (data.values - data.low) / reach
    for other, values in enumerate(scaled):
        if other != at:
            outline = values[:, None] * spokes
            panel.add_patch(Polygon(outline, fill=False, ec=GRID, lw=0.8, zorder=2))
    one = (1 - data.low) / reach
    ring = Circle((0, 0), one, fill=False, ec=BASELINE_COLOUR, lw=1.2, ls=(0, (3, 2)), zorder=5)
    panel.add_patch(ring)
    shade = colour(data.standings[at])
    outline = scaled[at][:, None] * spokes
    panel.add_patch(Polygon(outline, fc=shade, alpha=0.18, zorder=3))
    panel.add_patch(Polygon(outline, fill=False, ec=shade, lw=1.7, zorder=4))
    for tick in ticks[(ticks > max(1.0, data.low)) & (ticks <= data.high)]:
        across = (tick - data.low) / reach * math.sqrt(0.5)
        panel.text(
            across, across, f"{tick:g}", ha="center", va="center", fontsize=5.5, color=MUTED,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none"},
        )  # fmt: skip
    star = "★ " if data.standings[at] == "best" else ""
    panel.set_title(f"{star}{data.names[at]}", fontsize=8.5, loc="center", pad=7, color=INK)


def _directions(amount: int) -> np.ndarray:
    """Unit vectors (amount, 2), clockwise from the top."""
    angles = np.arange(amount) * 2 * np.pi / amount
    return np.column_stack([np.sin(angles), np.cos(angles)])


def _note(data: Radar) -> str:
    terms = ", ".join(name for name in data.axes if name != "OCS")
    note = (
        f"Linear from {_minus(data.low)} (centre) to {data.high:g} (rim). Dashed ring: 1, where "
        f"the baseline's {terms} stand; its OCS is 0."
    )
    if "E" not in data.axes:
        note += "\nE is no axis: energy was not measured for all."
    return f"{note}\n{data.left_out} further candidates are not drawn." if data.left_out else note


def _minus(value: float) -> str:
    return f"{value:g}".replace("-", "−")
