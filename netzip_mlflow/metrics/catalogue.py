"""Every figure that is logged, with its record; and the metric families that take them.

A task's metrics, and those of families that a recipe names, are known once these are opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from netzip_mlflow import factories
from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.metrics import accuracy, bookkeeping, fidelity, published, scores
from netzip_mlflow.metrics.family import NEEDS, Family
from netzip_mlflow.metrics.file import File
from netzip_mlflow.metrics.metric import Metric
from netzip_mlflow.metrics.process import Process
from netzip_mlflow.metrics.speed import Speed
from netzip_mlflow.metrics.throughput import Throughput

__all__ = [
    "ENTRY_POINTS",
    "FAMILIES",
    "METRICS",
    "PREFIXES",
    "add",
    "check",
    "describe",
    "extra",
    "families",
    "find",
    "listing",
    "metrics",
]

ENTRY_POINTS = "netzip_mlflow.metrics"
FAMILIES: tuple[Family, ...] = (File(), Speed(), Throughput(), Process())
METRICS: tuple[Metric, ...] = (
    *accuracy.METRICS,
    *published.METRICS,
    *scores.METRICS,
    *(metric for family in FAMILIES for metric in family.metrics),
    *fidelity.METRICS,
    *bookkeeping.METRICS,
)
PREFIXES = {
    "validation/": "accuracy, fidelity, ratio/P, ratio/al, score on validation: they select",
    "best/": "on the parent: the same figure of the best candidate",
}
_KEY = re.compile(r"[a-z]+(/[A-Za-z0-9_<>.-]+)+")
_OURS = {metric.key: metric for metric in METRICS}
_records = dict(_OURS)


def metrics() -> tuple[Metric, ...]:
    """All records, those of this package first."""
    return tuple(_records.values())


def find(key: str) -> Metric:
    """The record of a logged key; of one that has none, a record with the key as its label."""
    return _record(key) or Metric(key, key, "")


def describe(key: str) -> str | None:
    """What a logged key says, or None for a key that has no record."""
    record = _record(key)
    return None if record is None else record.describe()


def extra(keys: Iterable[str]) -> list[str]:
    """Of these, the keys of a task's or a family's own metrics that have a header."""
    held = set(keys)
    return [m.key for m in metrics()[len(METRICS) :] if m.header and m.key in held]


def listing() -> dict[str, str]:
    """Key -> what it says: ours, installed families', and all that are known besides.

    Raises:
        InputError: a family cannot be opened.
    """
    families(factories.installed(ENTRY_POINTS))
    prefixes = {f"{prefix}...": said for prefix, said in PREFIXES.items()}
    return {metric.key: metric.describe() for metric in metrics()} | prefixes


def add(metrics: Iterable[Metric], owner: str) -> None:
    """Make a task's or a family's records known to tables, report and lists.

    Raises:
        InputError: a key that is not one, or that has another record.
    """
    for metric in metrics:
        if not _KEY.fullmatch(metric.key):
            raise InputError(Problem(owner, f"the metric key {metric.key!r}", "family/name"))
        if _OURS.get(metric.key, metric) != metric:
            raise InputError(Problem(owner, f"{metric.key} is the key of another metric"))
        _records[metric.key] = metric


def families(names: Iterable[str]) -> tuple[Family, ...]:
    """Families by their entry points' names, or as module:Class; their records become known.

    Raises:
        InputError: unknown, cannot be imported, not a family, or two with one key.
    """
    opened = tuple(map(_family, names))
    keys = [metric.key for family in opened for metric in family.metrics]
    if doubled := [key for key in keys if keys.count(key) > 1]:
        raise InputError(Problem("measure.families", f"two of them give {doubled[0]}"))
    return opened


def check(raw: Mapping[str, Any]) -> list[Problem]:
    """The families that a recipe names."""
    measure = raw.get("measure")
    names = measure.get("families", ()) if isinstance(measure, Mapping) else ()
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        return []  # the schema says so
    try:
        families(names)
    except InputError as error:
        return list(error.problems)
    return []


def _family(name: str) -> Family:
    where = "measure.families"
    installed = factories.installed(ENTRY_POINTS)
    target = installed.get(name, name if ":" in name else None)
    if target is None:
        allowed = ", ".join([*installed, "module:Class"])
        hint = did_you_mean(name, installed)
        raise InputError(Problem(where, f"unknown metric family {name!r}", allowed, hint))
    cls = factories.import_function(target, where)
    allowed = f"a class with measure, metrics, and needs of {', '.join(NEEDS)}"
    if lacking := [n for n in ("needs", "metrics", "measure") if not hasattr(cls, n)]:
        what = f"{name!r} is not a metric family, it lacks {', '.join(lacking)}"
        raise InputError(Problem(where, what, allowed))
    family: Family = factories.call(cls, {}, target, where)
    if family.needs not in NEEDS:
        raise InputError(Problem(where, f"{name!r} needs {family.needs!r}", allowed))
    add(family.metrics, where)
    return family


def _record(key: str) -> Metric | None:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    direct = _records.get(key)
    return direct or next((metric for metric in _records.values() if metric.covers(key)), None)
