from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from netzip_mlflow.report.labels import place


def extents(x, y, names):
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    place(figure, axes, np.array(x), np.array(y), names)
    renderer = FigureCanvasAgg(figure).get_renderer()
    frame = axes.get_window_extent(renderer)
    return frame, [text.get_window_extent(renderer) for text in axes.texts]


def test_crowded_labels_do_not_cover_each_other():
    _, boxes = extents([5.0] * 4, [5.0, 5.1, 5.2, 5.3], ["first", "second", "third", "fourth"])
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_labels_stay_inside():
    frame, boxes = extents([0.1, 9.9, 5.0], [0.1, 9.9, 9.9], ["a long name", "another one", "top"])
    for box in boxes:
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0
        assert box.y1 <= frame.y1


def test_every_point_is_named_in_order():
    figure = Figure()
    axes = figure.subplots()
    place(figure, axes, np.array([0.0, 1.0]), np.array([0.0, 1.0]), ["a", "b"])
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
