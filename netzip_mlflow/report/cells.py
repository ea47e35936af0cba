"""A figure of a row with its interval, as it stands in a table's cell."""

from __future__ import annotations

from collections.abc import Callable

from netzip_mlflow.metrics.catalogue import find
from netzip_mlflow.metrics.row import Row

__all__ = ["interval"]


def interval(row: Row, key: str, show: Callable[[float], str] | None = None) -> str:
    """``2.24 [2.21, 2.27]``, without brackets where there is no interval, empty where absent.

    A unit that all three share stands once, at the end: ``0.757 [0.746, 0.770] ms``.
    """
    show = show or find(key).show
    value = row.metrics.get(key)
    if value is None:
        return ""
    low, high = row.metrics.get(f"{key}_low"), row.metrics.get(f"{key}_high")
    if low is None or high is None:
        return show(value)
    parts = [show(v).partition(" ") for v in (value, low, high)]
    (middle, _, unit), (lower, *_), (upper, *_) = parts
    if {p[2] for p in parts} == {unit}:
        return f"{middle} [{lower}, {upper}] {unit}".rstrip()
    return f"{show(value)} [{show(low)}, {show(high)}]"
