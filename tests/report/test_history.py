from __future__ import annotations

import numpy as np

from netzip_mlflow.report.history import by_number, by_time, draw_history
from netzip_mlflow.report.style import marker
from netzip_mlflow.report.trials import OUTCOMES

NAN = float("nan")


def test_by_number_the_best_so_far_is_of_feasible_ones(trials):
    data = by_number(trials)
    assert data.numbers == (0, 1, 2, 3, 4, 6, 7, 8)
    np.testing.assert_array_equal(data.ocs, [5.9, 9.5, 20.0, NAN, NAN, NAN, 9.1, NAN])
    np.testing.assert_array_equal(data.climb, [5.9, *[9.5] * 7])
    assert data.numbers[data.best] == 1


def test_by_time_in_minutes_from_two_on(trials):
    data = by_time(trials)
    assert data.axis == "Time at work, minutes"
    np.testing.assert_allclose(data.x * 60, [10, 40, 90, 92, 100, 110, 130, 131])


def test_nothing_feasible_has_no_best_so_far(hopeless):
    data = by_number(hopeless)
    assert data.best is None
    assert np.isnan(data.climb).all()
    above = draw_history(data).axes[0]
    assert above.get_title("left").endswith(": nothing within the constraint")


def test_every_trial_is_drawn_once_by_its_outcome(trials):
    above, below = draw_history(by_number(trials)).axes
    rows = [label.get_text() for label in below.get_yticklabels()]
    assert rows == ["the same chain again", "skipped by the bound", "stopped early", "failed"]
    points = {
        axes: [
            (line.get_marker(), *line.get_xdata()) for line in axes.lines if len(line.get_xdata())
        ]
        for axes in (above, below)
    }
    assert ("X", 2) in points[above]
    assert ("o", 0, 1, 7) in points[above]
    assert ("*", 1) in points[above]
    assert [x for _, x in points[below]] == [8, 3, 4, 6]
    assert "trial 1: 9.50" in [text.get_text() for text in above.texts]


def test_one_trial_stands_alone(single):
    (axes,) = draw_history(by_number(single)).axes
    assert [t for t in axes.get_xticks() if -0.7 <= t <= 0.7] == [0]


def test_no_two_outcomes_look_alike():
    shapes = [marker(outcome)["marker"] for outcome in (*OUTCOMES, "best", "baseline", "below")]
    colours = [marker(outcome)["color"] for outcome in OUTCOMES]
    assert len(set(shapes)) == len(shapes)
    assert len(set(colours)) == len(colours)
