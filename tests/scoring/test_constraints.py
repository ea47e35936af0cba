from __future__ import annotations

import math

import pytest

from netzip_mlflow.scoring import Constraints, verdict, violation

PLAIN = {"size/disk_bytes": 4 * 2**20, "speed/latency_ms": 10.0}
SMALL = {
    "validation/accuracy/drop_points": 1.5,
    "validation/accuracy/drop_points_high": 2.5,
    "validation/fidelity/agreement": 0.9,
    "validation/fidelity/worst_class_drop_points": 6.0,
    "size/disk_bytes": 2**20,
    "speed/latency_ms": 4.0,
    "ratio/its": 2.5,
}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 0.5),
        ({"strict": True}, 1.5),
        ({"max_latency_ms": 2.0}, 1.0),
        ({"max_latency_ms": 5.0}, -0.2),
        ({"max_disk_mib": 0.5}, 1.0),
        ({"max_disk_mib": 0.001}, (1 - 0.001) / 0.04),  # the floor: 1 % of the baseline's 4 MiB
        ({"min_speedup": 5.0}, 0.5),
        ({"min_speedup": 2.0}, -0.25),
        ({"min_agreement": 0.95}, 0.05 / 0.95),
        ({"max_worst_class_drop_points": 4.0}, 0.5),
        ({"max_worst_class_drop_points": 0.0}, 60.0),  # the floor: 0.1 points
    ],
)
def test_excess_over_the_limit_in_its_scale(limits, expected):
    constraints = Constraints(1.0, **limits)
    found = constraints.violations(PLAIN, SMALL)
    assert tuple(found) == constraints.names()
    assert found[constraints.names()[-1]] == pytest.approx(expected)


@pytest.mark.parametrize("drop", [0.0, 0.5, 1.0, 1.0 + 1e-12, 1.4, 40.0])
@pytest.mark.parametrize("limit", [0.0, 0.05, 1.0])
def test_the_drop_alone_agrees_with_the_verdict(drop, limit):
    row = {"validation/accuracy/drop_points": drop}
    found = violation(Constraints(limit).violations(PLAIN, row))
    judged = verdict({}, row, Constraints(limit), split="validation")
    assert (judged.feasible, judged.violation) == (found == 0, found)
    assert found == pytest.approx(max(0.0, drop - limit) / max(limit, 0.1), abs=1e-9)


def test_what_is_missing_is_infinitely_far():
    found = Constraints(1.0, min_speedup=2.0).violations(PLAIN, {})
    assert found == {"max_drop_points": math.inf, "min_speedup": math.inf}


def test_only_a_timing_can_judge_latency():
    assert Constraints(1.0, max_disk_mib=1.0).timed == ()
    assert Constraints(1.0, max_latency_ms=1.0, min_speedup=1.0).timed == (
        "max_latency_ms",
        "min_speedup",
    )


@pytest.mark.parametrize("wrong", range(12))
def test_below_the_least_accuracy_the_drop_is_over_its_limit(wrong):
    """On 200 images with a baseline of 90 %, for each number of further mistakes."""
    constraints = Constraints(2.5)
    accuracy = 0.9 - wrong / 200
    row = {"validation/accuracy/drop_points": 100 * (0.9 - accuracy)}
    over = constraints.violations(PLAIN, row)["max_drop_points"] > 0
    assert (accuracy < constraints.least(0.9)) == over == (wrong > 5)
