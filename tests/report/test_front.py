from __future__ import annotations

from netzip_mlflow.report.front import draw_front, front
from netzip_mlflow.report.trials import read


def test_the_front_is_of_feasible_trials(trials):
    """Against C: 0 (drop 0.2, C 3.9) and 1 (0.5, 7.5) beat 7 (0.9, 7.2); 2 is not feasible."""
    data = front(trials, "C", 1.0)
    assert data.numbers == (0, 1, 2, 7)
    assert [*data.front] == [True, True, False, False]
    assert [*front(trials, "S", 1.0).front] == [True, False, False, False]
    assert data.numbers[data.best] == 1


def test_what_breaks_another_limit_beats_nothing(written):
    """Trial 1 is better in both, but too slow: trial 0 stays on the front."""
    rows = [
        written.judged(0, "feasible", 0, 1, 5.0, 0.5, 4.0, 4.0),
        written.judged(1, "infeasible", 1, 2, 9.0, 0.1, 8.0, 8.0),
    ]
    assert [*front(read(rows, [0, 1], written.varied, 2), "C", 1.0).front] == [True, False]


def test_nothing_feasible_has_no_front(hopeless):
    data = front(hopeless, "C", 1.0)
    assert not data.front.any()
    said = [text.get_text() for text in draw_front(data).legends[0].get_texts()]
    assert said == ["outside the constraint", "limit"]


def test_a_smaller_drop_is_higher_and_what_is_far_stands_at_the_edge(hopeless):
    (axes,) = draw_front(front(hopeless, "C", 1.0)).axes
    low, high = axes.get_ylim()
    assert low > high, "downwards from good to bad"
    assert low < 5, "40 points do not press the others together"
    assert "▼ further down: 40.0 points" in [text.get_text() for text in axes.texts]


def test_the_limit_is_a_line(trials):
    (axes,) = draw_front(front(trials, "S", 1.0)).axes
    assert [1.0, 1.0] in [[*line.get_ydata()] for line in axes.lines]


def test_the_best_and_the_front_are_named(trials):
    (axes,) = draw_front(front(trials, "C", 1.0)).axes
    assert {"trial 1", "trial 0"} <= {text.get_text() for text in axes.texts}
