"""The verdict on a candidate, in words (MEASURING.md, section 8)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.scoring.constraints import Constraints, violation
from netzip_mlflow.scoring.ratios import Metrics, prefix

__all__ = ["Verdict", "verdict"]

SIZE_MARGIN = 0.01


@dataclass(frozen=True)
class Verdict:
    """`grade` is good, mixed or poor; `violation` is 0 when feasible, infinite where a figure that
    is limited is missing; `reasons` are sentences."""

    grade: str
    feasible: bool
    violation: float
    reasons: tuple[str, ...]


def verdict(
    baseline: Metrics, candidate: Metrics, limits: Constraints, *, split: str = "test"
) -> Verdict:
    """Grade a candidate over the terms that are present; feasible is what keeps every limit.

    Reads ``accuracy/drop_points`` (its ``_high`` when strict; with the split's prefix),
    ``ratio/C``, and ``ratio/its`` and ``ratio/E`` with their ``_low`` and ``_high``. Latency and
    energy are judged only where an interval says whether they changed at all.

    Raises:
        InputError: the drop that the constraint needs is missing or not finite.
    """
    drop = _drop(candidate, split=split, strict=limits.strict)
    excesses = limits.violations(baseline, candidate, split)
    excess = violation(excesses)
    unknown = any(math.isinf(each) for each in excesses.values())
    reasons = [
        _drop_reason(drop, limits, broken=excesses["max_drop_points"] > 0, split=split),
        *limits.reasons(baseline, candidate, split),
    ]
    improved = worse = False
    for change, reason in (
        _timed(candidate, "ratio/its", "latency", ("faster", "slower")),
        _sized(candidate),
        _timed(candidate, "ratio/E", "energy", ("less", "more")),
    ):
        improved |= change > 0
        worse |= change < 0
        if reason:
            reasons.append(reason)
    if excess > 0 or not improved:
        grade = "poor"
        if excess == 0:
            reasons.append("nothing improved")
    else:
        grade = "mixed" if worse else "good"
    return Verdict(grade, excess == 0, math.inf if unknown else excess, tuple(reasons))


def _drop(candidate: Metrics, *, split: str, strict: bool) -> float:
    key = f"{prefix(split)}accuracy/drop_points" + ("_high" if strict else "")
    value = candidate.get(key)
    if value is None or not math.isfinite(value):
        what = "is missing" if value is None else f"is {value!r}"
        hint = "the constraint is judged on the interval's upper end" if strict else ""
        raise InputError(Problem(key, what, "a finite number of points", hint))
    return value


def _drop_reason(drop: float, limits: Constraints, *, broken: bool, split: str) -> str:
    accuracy = "accuracy" if split == "test" else f"{split} accuracy"
    what = f"{accuracy} {'falls' if drop >= 0 else 'rises'} by {abs(drop):.2f} points"
    if limits.strict:
        what = f"{accuracy} falls by at most {drop:.2f} points (interval's upper end)"
    return f"{what}, {'outside' if broken else 'within'} the limit of {limits.max_drop_points:g}"


def _timed(candidate: Metrics, key: str, name: str, words: tuple[str, str]) -> tuple[int, str]:
    ratio = candidate.get(key)
    if ratio is None:
        return 0, ""
    low, high = candidate.get(f"{key}_low"), candidate.get(f"{key}_high")
    if low is None or high is None:
        return 0, f"{name}: ratio {ratio:.2f} without an interval, not judged"
    interval = f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
    if low > 1:
        return 1, f"{name}: {words[0]}, ratio {interval}"
    if high < 1:
        return -1, f"{name}: {words[1]}, ratio {interval}"
    return 0, f"{name}: no measurable change, ratio {interval}"


def _sized(candidate: Metrics) -> tuple[int, str]:
    ratio = candidate.get("ratio/C")
    if ratio is None:
        return 0, ""
    change = 1 / ratio - 1
    if change < -SIZE_MARGIN:
        return 1, f"compression: smaller, ratio {ratio:.2f}"
    if change > SIZE_MARGIN:
        return -1, f"compression: larger, ratio {ratio:.2f}"
    return 0, f"compression: no change over 1 %, ratio {ratio:.2f}"
