from __future__ import annotations

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from netzip_mlflow.report.search_plots import figures, missing
from netzip_mlflow.report.trials import read

SHARES = {"ptq.bits": 0.7, "qat.lr": 0.3}
ALL = [
    "history", "history_time", "importances", "parallel_coordinates", "slice",
    "pareto_compression", "pareto_speed",
]  # fmt: skip


def test_every_picture(trials):
    assert list(figures(trials, SHARES, 1.0)) == ALL
    assert missing(trials, SHARES) == []


def test_what_is_left_out_is_said(trials):
    assert list(figures(trials, {}, 1.0)) == [name for name in ALL if name != "importances"]
    (said,) = missing(trials, {})
    assert "importances are left out" in said
    assert "(here 6)" in said, "3 feasible, 1 not, 1 the same again, 1 stopped"


def test_without_a_judged_trial_there_is_nothing(written):
    skipped = read(written.rows[3:5], [4], written.varied, 2)
    assert figures(skipped, {}, 1.0) == {}
    assert missing(skipped, {}) == ["No trial was judged to its end: there is nothing to plot."]


def test_too_many_parameters_are_chosen_by_importance(written):
    varied = {f"t{n}.x": {"low": 0.0, "high": 1.0} for n in range(20)}
    chosen = dict.fromkeys(varied, 0.5)
    rows = [
        written.judged(n, "feasible", n, n + 1, 1.0 + n, 0.1, 2.0, 2.0, chosen) for n in range(2)
    ]
    many = read(rows, [1, 0], varied, 2)
    shares = {f"t{n}.x": n / 190 for n in range(20)}
    shown = [axes.get_xlabel() for axes in figures(many, shares, 1.0)["slice"].axes]
    assert shown == [f"t{n}.x" for n in range(8, 20)]
    assert missing(many, shares) == [
        "`parallel_coordinates` shows the 8 most important of 20 parameters.",
        "`slice` shows the 12 most important of 20 parameters.",
    ]


@pytest.mark.parametrize("which", ["trials", "hopeless", "single"])
def test_texts_lie_in_the_picture_and_not_over_each_other(which, request):
    for name, figure in figures(request.getfixturevalue(which), SHARES, 1.0).items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        paper = figure.bbox
        texts = list(figure.legends)
        for axes in figure.axes:
            texts += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
            if axes.axison:
                (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
                texts += [t for t in axes.get_xticklabels() if left <= t.get_position()[0] <= right]
                texts += [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
        boxes = []
        for text in texts:
            box = text.get_window_extent(canvas.get_renderer())
            if getattr(text, "get_text", lambda: "legend")() and box.width > 0:
                boxes.append((text, box))
        inside = [
            (t, b)
            for t, b in boxes
            if paper.x0 - 1 <= b.x0 and b.x1 <= paper.x1 + 1 and paper.y0 - 1 <= b.y0 <= paper.y1
        ]
        assert [str(t) for t, _ in boxes if (t, _) not in inside] == [], name
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            if one.axes is other.axes is not None and "Tick" not in str(type(one)):
                width = min(a.x1, b.x1) - max(a.x0, b.x0)
                height = min(a.y1, b.y1) - max(a.y0, b.y0)
                assert not (width > 2 and height > 2), (name, str(one), str(other))
