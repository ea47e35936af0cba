"""How good a candidate can become whose accuracy is not known yet: what a search may skip.

With K = l2 (S - 1) + l3 (C - 1) the score is OCS(P) = P (l1 (P - 1) + K), convex in P, so that on
any range of P its maximum stands at an end of the range. A feasible candidate has P between what
the constraint leaves and 1 / accuracy of the baseline, since no accuracy is above 1. It can be
passed over when that maximum is not above the best feasible OCS that has been measured: exact for
the single best, not for a Pareto front.
"""

from __future__ import annotations

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.scoring.basis import Basis
from netzip_mlflow.scoring.ratios import Metrics, prefix, score

__all__ = ["KNOWN_SIZES", "KNOWN_SPEEDS", "ocs_bound"]

KNOWN_SPEEDS, KNOWN_SIZES = ("chats", "macs", "ops"), ("disk", "params")  # without training


def ocs_bound(
    baseline: Metrics,
    candidate: Metrics,
    basis: Basis,
    *,
    max_drop_points: float,
    split: str = "validation",
) -> float:
    """The highest OCS that a candidate can have within the constraint.

    Args:
        baseline: its accuracy on `split`, and what the basis' speed and size read.
        candidate: what the basis' speed and size read, of the same graph before training.
        max_drop_points: the constraint on the accuracy's drop, in points.

    Raises:
        InputError: the basis' speed or size is not known before training; or as `score` does.

    >>> plain = {"validation/accuracy/top1": 0.8, "speed/chats": 64.0, "size/disk_bytes": 100.0}
    >>> small = {"speed/chats": 16.0, "size/disk_bytes": 25.0}
    >>> ocs_bound(plain, small, Basis(), max_drop_points=1.0)  # P up to 1 / 0.8: 1.25 x 6.25
    7.8125
    """
    problems = [
        Problem(field, f"{given!r} is not known before training", ", ".join(known))
        for field, given, known in (
            ("speed", basis.speed, KNOWN_SPEEDS),
            ("size", basis.size, KNOWN_SIZES),
        )
        if given not in known
    ]
    if problems:
        raise InputError(problems)
    key = prefix(split) + basis.accuracy_key
    ends = [1.0, max(0.0, baseline.get(key, 0.0) - max_drop_points / 100)]
    found = [score(baseline, {**candidate, key: a}, basis, split=split).ocs for a in ends]
    return max(found)
