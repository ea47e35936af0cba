from __future__ import annotations

from netzip_mlflow.scoring import best


def row(ocs, drop, limit=1.0, high=None):
    found = {
        "validation/score/ocs": ocs,
        "validation/score/feasible": float(drop <= limit),
        "validation/accuracy/drop_points": drop,
        "score/ocs": 1000 - ocs,  # a test figure, that must choose nothing
    }
    return found if high is None else found | {"validation/accuracy/drop_points_high": high}


def test_the_highest_feasible_score_on_validation():
    choice = best(
        {"int8": row(5.4, 0.2), "four": row(9.6, -0.05), "two": row(16.0, 1.9)}, max_drop_points=1
    )
    assert (choice.best, choice.least_violating, choice.feasible) == ("four", None, True)
    assert choice.reason == "highest OCS on validation (9.600) of 2 feasible, 3 measured"


def test_a_dead_model_never_wins():
    """OCS is convex in P: 0 for a dead model is above a slightly worse one's."""
    choice = best({"dead": row(0.0, 78.0), "pruned": row(-0.04, 0.5)}, max_drop_points=1)
    assert choice.best == "pruned"


def test_nothing_feasible_names_the_least_violating():
    choice = best({"a": row(9.0, 3.0), "b": row(2.0, 1.2)}, max_drop_points=1)
    assert (choice.best, choice.least_violating, choice.named) == (None, "b", "b")
    assert not choice.feasible
    assert "violation 0.20" in choice.reason


def test_strict_orders_by_the_upper_end():
    rows = {"a": row(1.0, 1.2, high=4.0), "b": row(1.0, 1.3, high=2.0)}
    assert best(rows, max_drop_points=1).named == "a"
    assert best(rows, max_drop_points=1, strict=True).named == "b"


def test_equal_scores_take_the_smaller_drop():
    assert best({"a": row(5.0, 0.4), "b": row(5.0, 0.1)}, max_drop_points=1).best == "b"


def test_failed_candidates_are_passed_over():
    choice = best({"failed": {}, "ok": row(1.0, 0.0)}, max_drop_points=1)
    assert choice.best == "ok"
    empty = best({"failed": {}}, max_drop_points=1)
    assert (empty.best, empty.named) == (None, None)
    assert empty.reason == "no candidate was measured"
