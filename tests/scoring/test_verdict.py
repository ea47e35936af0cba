from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.errors import InputError
from netzip_mlflow.scoring import Constraints, verdict, violation

GOOD = {
    "accuracy/drop_points": 0.16,
    "accuracy/drop_points_high": 0.41,
    "ratio/its": 2.24,
    "ratio/its_low": 2.21,
    "ratio/its_high": 2.27,
    "ratio/C": 7.6,
}


def grade(*, limit=1.0, strict=False, **changes):
    keys = {"drop": "accuracy/drop_points", "high": "accuracy/drop_points_high"}
    row = GOOD | {keys.get(k, f"ratio/{k}"): v for k, v in changes.items()}
    return verdict({}, row, Constraints(limit, strict))


def over(drop, limit):
    return violation(Constraints(limit).violations({}, {"validation/accuracy/drop_points": drop}))


@pytest.mark.parametrize(
    ("drop", "limit", "expected"),
    [
        (0.5, 1.0, 0.0),
        (1.0, 1.0, 0.0),
        (1.5, 1.0, 0.5),
        (4.0, 2.0, 1.0),
        (0.05, 0.0, 0.5),
        (-3.0, 0.0, 0.0),
        (100 * (0.8821 - 0.8721), 1.0, 0.0),
    ],
)
def test_violation(drop, limit, expected):
    assert over(drop, limit) == pytest.approx(expected)


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0, 10))
def test_violation_never_shrinks_with_the_drop(a, b, limit):
    low, high = sorted((a, b))
    assert over(low, limit) <= over(high, limit)


def test_good():
    found = grade()
    assert (found.grade, found.feasible, found.violation) == ("good", True, 0.0)
    assert found.reasons == (
        "accuracy falls by 0.16 points, within the limit of 1",
        "latency: faster, ratio 2.24 [2.21, 2.27]",
        "compression: smaller, ratio 7.60",
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"its": 0.4, "its_low": 0.38, "its_high": 0.42}, "mixed"),
        ({"its": 1.02, "its_low": 0.99, "its_high": 1.05}, "good"),
        ({"its": 1.02, "its_low": 0.99, "its_high": 1.05, "C": 1.0}, "poor"),
        ({"its": 1.02, "its_low": 0.99, "its_high": 1.05, "C": 1.005}, "poor"),
        ({"C": 0.9}, "mixed"),
        ({"its_low": 0.7, "its_high": 0.9, "C": 0.9}, "poor"),
        ({"drop": 1.2}, "poor"),
        ({"E": 0.5, "E_low": 0.4, "E_high": 0.6}, "mixed"),
        ({"C": 1.0, "E": 2.0, "E_low": 1.9, "E_high": 2.1}, "good"),
    ],
)
def test_grades(changes, expected):
    assert grade(**changes).grade == expected


def test_an_interval_that_contains_one_is_no_measurable_change():
    found = grade(its=1.3, its_low=0.98, its_high=1.6)
    assert "latency: no measurable change, ratio 1.30 [0.98, 1.60]" in found.reasons


def test_without_an_interval_latency_is_not_judged():
    row = {"accuracy/drop_points": 0.0, "ratio/its": 0.5, "ratio/C": 2.0}
    found = verdict({}, row, Constraints(1.0))
    assert found.grade == "good"
    assert "latency: ratio 0.50 without an interval, not judged" in found.reasons


def test_absent_terms_are_not_judged():
    found = verdict({}, {"accuracy/drop_points": -0.1}, Constraints(1.0))
    assert found.reasons == (
        "accuracy rises by 0.10 points, within the limit of 1",
        "nothing improved",
    )


def test_strict_takes_the_upper_end():
    assert grade(limit=0.3).feasible
    strict = grade(limit=0.3, strict=True)
    assert not strict.feasible
    assert strict.violation == pytest.approx((0.41 - 0.3) / 0.3)
    with pytest.raises(InputError, match="drop_points_high"):
        verdict({}, {"accuracy/drop_points": 0.1}, Constraints(1.0, strict=True))


def test_validation_figures_judge_the_selection():
    row = GOOD | {"validation/accuracy/drop_points": 1.4}
    found = verdict({}, row, Constraints(1.0), split="validation")
    assert not found.feasible
    assert found.reasons[0] == "validation accuracy falls by 1.40 points, outside the limit of 1"
    with pytest.raises(InputError, match="validation/accuracy/drop_points"):
        verdict({}, GOOD, Constraints(1.0), split="validation")


def test_a_drop_that_is_not_finite():
    with pytest.raises(InputError, match="nan"):
        grade(drop=float("nan"))


def test_every_limit_counts_and_is_said():
    limits = Constraints(1.0, max_disk_mib=0.5, min_speedup=2.0)
    found = verdict({"size/disk_bytes": 2**22}, GOOD | {"size/disk_bytes": 2**20}, limits)
    assert (found.grade, found.feasible, found.violation) == ("poor", False, 1.0)
    assert "max_disk_mib: 1, outside the limit of 0.5" in found.reasons
    assert "min_speedup: 2.24, within the limit of 2" in found.reasons


def test_a_limited_figure_that_is_missing_is_not_kept():
    found = verdict({}, GOOD, Constraints(1.0, min_agreement=0.9))
    assert (found.feasible, found.violation) == (False, float("inf"))
