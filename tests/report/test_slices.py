from __future__ import annotations

from netzip_mlflow.report.slices import draw_slices, slices


def test_a_conditional_parameter_only_where_it_stands(trials):
    ratio, lr = slices(trials, ["prune_channels.ratio", "qat.lr"])
    assert ([*ratio.x], [*ratio.ocs], ratio.standings) == ([0.75], [20.0], ("infeasible",))
    assert lr.standings == ("infeasible", "feasible")
    assert lr.x[0] == 0.5, "0.01 is half way from 0.001 to 0.1"


def test_values_in_the_order_of_the_space_and_the_best_marked(trials):
    (bits,) = slices(trials, ["ptq.bits"])
    assert [*bits.x] == [1 / 6, 0.5, 0.5, 5 / 6]
    assert bits.standings == ("feasible", "best", "infeasible", "feasible")


def test_one_small_picture_each(trials):
    names = ["place 1", "qat.lr", "ptq.bits", "prune_channels.ratio"]
    figure = draw_slices(slices(trials, names))
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "place 1", "qat.lr (log)", "ptq.bits", "prune_channels.ratio",
    ]  # fmt: skip
    assert [t.get_text() for t in figure.axes[1].get_xticklabels()] == ["0.001", "0.01", "0.1"]
