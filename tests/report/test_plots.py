from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from netzip_mlflow.report import plots
from netzip_mlflow.report.style import BASELINE_COLOUR

points = st.lists(st.tuples(st.floats(0, 9), st.floats(0, 1)), min_size=1, max_size=12)


def plane_of(values):
    names = [f"m{i}" for i in range(len(values))]
    x, y = zip(*values, strict=True)
    return plots.plane(
        pd.DataFrame({"name": names, "speed/latency_ms": x, "accuracy/top1": y}),
        "speed/latency_ms",
    )


def test_bars_stand_in_the_order_of_the_table(frame):
    data = plots.bars(frame, "ratio/its", best="four_bit")
    assert data.names == ("baseline", "four_bit", "int8", "half", "half_macs", "dead")
    assert data.standings[:2] == ("baseline", "best")
    np.testing.assert_allclose(data.values[:3], [1.0, 2.231, 2.236])
    assert np.isnan(data.lows[0])
    np.testing.assert_allclose(data.highs[1], 2.231 * 1.02)


def test_bars_leave_out_models_without_the_metric(frame):
    assert plots.bars(frame, "speed/int8_layers").names == ("int8",)


def test_drawn_bars_are_the_values(frame):
    figure = plots.draw_bars(plots.bars(frame, "size/disk_bytes"))
    (axes,) = figure.axes
    np.testing.assert_allclose(
        [bar.get_width() for bar in axes.patches],
        [1086.712, 143.323, 276.584, 545.901, 74.430, 1086.712],
    )
    assert axes.get_yticklabels()[0].get_text() == "baseline"
    assert "143.3 kB" in [text.get_text() for text in axes.texts]


def test_plane_whiskers_are_those_of_the_paired_drop(frame):
    data = plots.plane(frame, "speed/latency_ms")
    at = data.names.index("int8")
    np.testing.assert_allclose(data.y_lows[at], 0.8806 - 0.003)
    np.testing.assert_allclose(data.y_highs[at], 0.8806 + 0.003)
    assert np.isnan(data.y_lows[0])


def test_front_and_outliers(frame):
    data = plots.plane(frame, "size/disk_bytes")
    front = {n for n, on in zip(data.names, data.front, strict=True) if on}
    assert front == {"baseline", "half", "int8", "four_bit", "half_macs"}
    assert [n for n, low in zip(data.names, data.below, strict=True) if low] == ["dead"]


@given(points)
def test_front_by_brute_force(values):
    data = plane_of(values)
    for i, (x, y) in enumerate(zip(data.x, data.y, strict=True)):
        beaten = any(
            a <= x and b >= y and (a < x or b > y) for a, b in zip(data.x, data.y, strict=True)
        )
        assert data.front[i] == (not beaten)
    assert data.front.any()


def test_a_dead_model_is_shown_at_the_edge_with_its_value(frame):
    figure = plots.draw_plane(plots.plane(frame, "speed/latency_ms", best="four_bit"))
    (axes,) = figure.axes
    assert axes.get_ylim()[0] > 80
    said = [text.get_text() for text in axes.texts]
    assert "dead, 10.00 % ↓" in said
    assert "★ four_bit" in said


def test_far_apart_sizes_get_a_logarithmic_axis(frame):
    wide = plots.draw_plane(plots.plane(frame, "size/disk_bytes")).axes[0]
    assert (wide.get_xscale(), wide.get_xlabel()) == ("log", "Size on disk, kB, log scale")
    near = plots.draw_plane(plots.plane(frame, "speed/latency_ms")).axes[0]
    assert near.get_xscale() == "linear"
    assert near.get_xlim()[0] == 0


def test_figures_are_those_that_the_frame_has_data_for(frame):
    found = plots.figures(frame, best="four_bit")
    assert list(found)[:4] == ["accuracy_latency", "accuracy_size", "radar", "bars_accuracy_top1"]
    assert "bars_score_ocs" in found
    assert "bars_energy_joules" not in found
    only = plots.figures(frame[frame["name"] == "baseline"])
    assert only == {}


def test_saving_twice_gives_the_same_bytes(frame, tmp_path):
    for suffix in ("svg", "png"):
        first, second = (
            plots.save(
                plots.draw_plane(plots.plane(frame, "speed/latency_ms")), tmp_path / f"{i}.{suffix}"
            ).read_bytes()
            for i in range(2)
        )
        assert first == second


def test_saved_svg_has_texts_and_no_date(frame, tmp_path):
    data = plots.bars(frame, "score/ocs")
    svg = plots.save(plots.draw_bars(data), tmp_path / "new" / "bars.svg").read_text()
    assert "four_bit</text>" in svg
    assert "<dc:date>" not in svg
    assert BASELINE_COLOUR in svg


def test_names_are_texts_not_mathematics(tmp_path):
    frame = pd.DataFrame({"name": ["a", r"$\frac{"], "score/ocs": [0.0, 1.0]})
    figure = plots.draw_bars(plots.bars(frame, "score/ocs"))
    assert r"$\frac{" in plots.save(figure, tmp_path / "x.svg").read_text()


@pytest.mark.parametrize("metric", ["speed/latency_ms", "size/disk_bytes"])
def test_pictures_are_readable_at_600_pixels(frame, tmp_path, metric):
    """The smallest type is at least 7 px when the picture is shown 600 px wide."""
    figure = plots.draw_plane(plots.plane(frame, metric))
    with Image.open(plots.save(figure, tmp_path / "x.png")) as picture:
        shrink = 600 / picture.width
    legend = [text.get_fontsize() for text in figure.legends[0].get_texts()]
    labels = [text.get_fontsize() for text in figure.axes[0].texts]
    assert min(legend + labels) / 72 * 160 * shrink >= 7


def many(count, top1=lambda number: 0.8):
    """So many models, the first the baseline; the others are infeasible from 0.5 downwards."""
    rows = [
        {
            "name": f"m{number}",
            "kind": "candidate" if number else "baseline",
            "accuracy/top1": top1(number),
            "accuracy/drop_points": 100 * (0.8 - top1(number)),
            "score/ocs": 1000.0 - number,
            "score/feasible": float(top1(number) > 0.5),
            "speed/latency_ms": 1.0 + number / 10,
            "size/disk_bytes": 1e6 + number,
        }
        for number in range(count)
    ]
    return pd.DataFrame(rows)


def words(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_bars_have_room_for_forty_models():
    data = plots.bars(many(100), "speed/latency_ms")
    assert data.names == tuple(f"m{number}" for number in range(40))
    assert data.left_out == 60
    figure = plots.draw_bars(data)
    assert any(text.startswith("60 further models are not drawn") for text in words(figure))
    assert figure.get_size_inches()[1] < 15
    assert plots.bars(many(40), "speed/latency_ms").left_out == 0


def test_a_plane_of_many_models_draws_all_and_names_the_first():
    figure = plots.draw_plane(plots.plane(many(50), "speed/latency_ms"))
    said = words(figure)
    assert {f"m{number}" for number in range(30)} <= set(said)
    assert not {f"m{number}" for number in range(30, 50)} & set(said)
    assert any(text.startswith("20 models without a name") for text in said)


@pytest.mark.parametrize(("dead", "named"), [(3, True), (8, False)])
def test_models_far_below_are_named_while_they_are_few(dead, named):
    frame = many(12, lambda number: 0.1 if number >= 12 - dead else 0.8)
    said = words(plots.draw_plane(plots.plane(frame, "speed/latency_ms")))
    assert any("m11, 10.00 %" in text for text in said) is named
    assert "m1" in said
    assert any(text.startswith(f"{dead} models without a name") for text in said) is not named
