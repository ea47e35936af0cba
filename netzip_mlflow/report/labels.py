"""Names beside points, placed so that they cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from netzip_mlflow.report.style import INK, MUTED, PAPER

__all__ = ["place"]

# directions to try, in order of preference: beside first, since names are wide
_DIRECTIONS = ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1))
_DISTANCES = (9, 20, 34)
_FONT = 8
_LEADER_FROM = 15
_POINT = 8.0


def place(figure: Figure, axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Annotate every point; the greedy choice, in the order given, is deterministic.

    Args:
        figure: the figure, complete but for the labels: its layout is frozen here.
        axes: where the points are.
        x: data coordinates (n,).
        y: data coordinates (n,).
        names: one text per point.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")
    renderer = canvas.get_renderer()
    pixel = figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y]))
    marks = [_around(point, _POINT * pixel) for point in points]
    frame = axes.get_window_extent(renderer)
    taken: list[tuple[float, float, float, float]] = []
    for point, name in zip(points, names, strict=True):
        probe = axes.text(0, 0, name, fontsize=_FONT)
        extent = probe.get_window_extent(renderer)
        probe.remove()
        size = (extent.width, extent.height)
        edges = (frame.x0, frame.y0, frame.x1, frame.y1)
        box, shift, distance = _best(point, size, pixel, [*marks, *taken], edges)
        taken.append(box)
        _annotate(axes, point, name, shift, far=distance >= _LEADER_FROM)


def _best(
    point: np.ndarray,
    size: tuple[float, float],
    pixel: float,
    occupied: list[tuple[float, float, float, float]],
    frame: tuple[float, float, float, float],
) -> tuple[tuple[float, float, float, float], tuple[float, float], float]:
    found = None
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            slant = 0.8 if right and up else 1.0
            centre = (
                point[0] + right * (distance * slant * pixel + size[0] / 2),
                point[1] + up * (distance * slant * pixel + size[1] / 2),
            )
            box = (
                centre[0] - size[0] / 2,
                centre[1] - size[1] / 2,
                centre[0] + size[0] / 2,
                centre[1] + size[1] / 2,
            )
            cost = sum(_overlap(box, other) for other in occupied)
            cost += size[0] * size[1] - _overlap(box, frame)
            if found is None or cost < found[0] - 1e-6:
                shift = ((centre[0] - point[0]) / pixel, (centre[1] - point[1]) / pixel)
                found = (cost, box, shift, distance)
    assert found is not None  # noqa: S101 (the tables above are not empty)
    return found[1:]


def _annotate(
    axes: Axes, point: np.ndarray, name: str, shift: tuple[float, float], *, far: bool
) -> None:
    arrow = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkB": 3} if far else None
    axes.annotate(
        name,
        tuple(axes.transData.inverted().transform(point)),
        xytext=shift,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=_FONT,
        color=INK,
        arrowprops=arrow,
        bbox={"boxstyle": "square,pad=0.08", "facecolor": PAPER, "edgecolor": "none"},
        zorder=5,
    )


def _around(point: np.ndarray, width: float) -> tuple[float, float, float, float]:
    half = width / 2
    return (point[0] - half, point[1] - half, point[0] + half, point[1] + half)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
