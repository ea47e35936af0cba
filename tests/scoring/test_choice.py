from __future__ import annotations

from netzip_mlflow.scoring import Constraints, best, violation


def row(ocs, drop, limits=Constraints(1.0), high=None, **more):  # noqa: B008 (frozen)
    found = more | {"validation/accuracy/drop_points": drop, "validation/score/ocs": ocs}
    found |= {} if high is None else {"validation/accuracy/drop_points_high": high}
    over = violation(limits.violations({}, found))
    return found | {
        "validation/score/feasible": float(over == 0),
        "validation/score/violation": over,
        "score/ocs": 1000 - ocs,  # a test figure, that must choose nothing
    }


def test_the_highest_feasible_score_on_validation():
    choice = best({"int8": row(5.4, 0.2), "four": row(9.6, -0.05), "two": row(16.0, 1.9)})
    assert (choice.best, choice.least_violating, choice.feasible) == ("four", None, True)
    assert choice.reason == "highest OCS on validation (9.600) of 2 feasible, 3 measured"


def test_a_dead_model_never_wins():
    """OCS is convex in P: 0 for a dead model is above a slightly worse one's."""
    choice = best({"dead": row(0.0, 78.0), "pruned": row(-0.04, 0.5)})
    assert choice.best == "pruned"


def test_nothing_feasible_names_the_least_violating():
    choice = best({"a": row(9.0, 3.0), "b": row(2.0, 1.2)})
    assert (choice.best, choice.least_violating, choice.named) == (None, "b", "b")
    assert not choice.feasible


def test_violations_of_all_limits_add_up_and_are_named():
    limits, baseline = Constraints(1.0, max_disk_mib=1.0), {"size/disk_bytes": 4 * 2**20}
    rows = {
        "large": row(9.0, 0.5, limits, **{"size/disk_bytes": 3 * 2**20}),  # 2.0 over
        "both": row(2.0, 1.5, limits, **{"size/disk_bytes": 1.25 * 2**20}),  # 0.5 + 0.25
        "dead": row(3.0, 40.0, limits, **{"size/disk_bytes": 2**20}),
    }
    choice = best(rows, limits, baseline)
    assert (choice.best, choice.named) == (None, "both")
    assert "max_drop_points by 0.50, max_disk_mib by 0.25" in choice.reason
    assert best(rows).named == "both", "runs that were graded before name theirs"


def test_strict_orders_by_the_upper_end():
    strict = Constraints(1.0, strict=True)
    rows = {"a": row(1.0, 1.2, strict, high=4.0), "b": row(1.0, 1.3, strict, high=2.0)}
    assert best(rows, strict, {}).named == "b"


def test_equal_scores_take_the_smaller_drop():
    assert best({"a": row(5.0, 0.4), "b": row(5.0, 0.1)}).best == "b"


def test_failed_candidates_are_passed_over():
    choice = best({"failed": {}, "ok": row(1.0, 0.0)})
    assert choice.best == "ok"
    empty = best({"failed": {}})
    assert (empty.best, empty.named) == (None, None)
    assert empty.reason == "no candidate was measured"
