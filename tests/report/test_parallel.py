from __future__ import annotations

import numpy as np

from netzip_mlflow.report.parallel import draw_parallel, parallel


def test_lines_through_parameters_to_ocs(trials):
    data = parallel(trials, ["qat.lr", "ptq.bits"])
    assert [d.name for d in data.dimensions] == ["qat.lr", "ptq.bits", "OCS"]
    assert data.standings == ("infeasible", "feasible", "feasible", "best")
    assert [*data.ocs] == [20.0, 5.9, 9.1, 9.5]
    assert np.isnan(data.places[[1, 3], 0]).all(), "no qat in their chains"
    np.testing.assert_allclose(data.places[:, 1], [0.5, 1 / 6, 5 / 6, 0.5])
    np.testing.assert_allclose(data.places[:, 2], [1, 0, 3.2 / 14.1, 3.6 / 14.1])


def test_drawn_with_and_without_what_is_missing(trials, hopeless, single):
    (axes, _bar) = draw_parallel(parallel(trials, ["qat.lr", "ptq.bits"])).axes
    assert "not in\nthe chain" in [text.get_text() for text in axes.texts]
    for few in (hopeless, single):
        (axes,) = draw_parallel(parallel(few, ["ptq.bits"])).axes
        assert "not in\nthe chain" not in [text.get_text() for text in axes.texts]
