from __future__ import annotations

import numpy as np

from netzip_mlflow.report.radar import MOST, draw_radar, radar
from netzip_mlflow.report.style import BASELINE_COLOUR


def test_absent_terms_are_no_axes(frame):
    data = radar(frame, best="four_bit")
    assert data.axes == ("P", "S", "C", "OCS")
    assert data.names == ("four_bit", "int8", "half", "half_macs", "dead")
    assert data.standings[0] == "best"
    np.testing.assert_allclose(data.values[1], [1 - 0.15 / 88.21, 4, 1_086_712 / 276_584, 5.92])


def test_energy_is_an_axis_only_when_all_have_it(frame):
    frame["ratio/E"] = 2.0
    assert radar(frame).axes == ("P", "S", "C", "E", "OCS")
    frame.loc[frame["name"] == "half", "ratio/E"] = np.nan
    assert radar(frame).axes == ("P", "S", "C", "OCS")


def test_one_scale_holds_every_value(frame):
    data = radar(frame)
    assert (data.low, data.high) == (0.0, 21.0)
    frame.loc[frame["name"] == "dead", "score/ocs"] = -0.2
    assert radar(frame).low == -1.0


def test_more_candidates_than_panels_are_counted(frame):
    many = frame.loc[[0] + [1] * (MOST + 3)].reset_index(drop=True)
    many["name"] = ["baseline", *(f"c{i}" for i in range(MOST + 3))]
    data = radar(many)
    assert (len(data.names), data.left_out) == (MOST, 3)
    assert "3 further candidates" in draw_radar(data).get_supxlabel()


def test_the_ring_at_one_is_drawn_on_the_scale(frame):
    data = radar(frame)
    figure = draw_radar(data)
    rings = [
        patch
        for patch in figure.axes[0].patches
        if getattr(patch, "radius", None) is not None
        and tuple(round(255 * c) for c in patch.get_edgecolor()[:3])
        == tuple(bytes.fromhex(BASELINE_COLOUR[1:]))
    ]
    assert [ring.radius for ring in rings] == [(1 - data.low) / (data.high - data.low)]
    assert "its OCS is 0" in figure.get_supxlabel()


def test_a_frame_without_candidates(frame):
    assert radar(frame[frame["name"] == "baseline"]).names == ()
