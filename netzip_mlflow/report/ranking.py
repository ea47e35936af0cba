"""Who stands where: baseline first, feasible by score, infeasible by violation, failed last.

A frame is a `pandas.DataFrame` with one row per model. Its columns are metric keys (DESIGN.md,
section 3) and the texts ``name, kind, chain, verdict, reasons, flags, run_id, status, error``; a
metric that does not apply is NaN, or its column is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics.catalogue import metrics
from netzip_mlflow.metrics.row import Row

__all__ = ["Standing", "accuracy_key", "arrange", "standings"]

# never ranked across (MEASURING.md, section 1): a frame holds one group
_GROUPED = ("baseline", "basis", "terms", "fingerprint")


class Standing(NamedTuple):
    """Rows of a frame in the order in which they are shown; rows are mappings by column."""

    baseline: Row
    feasible: tuple[Row, ...]
    infeasible: tuple[Row, ...]
    failed: tuple[Row, ...]

    @property
    def candidates(self) -> tuple[Row, ...]:
        """The candidates that were measured, in order."""
        return self.feasible + self.infeasible

    @property
    def measured(self) -> tuple[Row, ...]:
        """The baseline and the candidates that were measured, in order."""
        return (self.baseline, *self.candidates)

    def find(self, name: str | None) -> Row | None:
        """The measured candidate of this name."""
        return next((row for row in self.candidates if row.name == name), None)


def arrange(frame: pd.DataFrame) -> Standing:
    """Split a frame by standing and order each part.

    The baseline is the row of that kind, else the first. Feasible rows go by OCS, infeasible ones
    by the sum of their violations, then by their drop, all on validation figures where the frame
    has them, as the selection does. A row that nobody judged counts as feasible.

    Raises:
        NetzipError: no row, two rows with one name, a baseline that failed, or several groups.
    """
    records = frame.to_dict("records")
    rows = [Row.of({str(key): value for key, value in record.items()}) for record in records]
    _check(rows)
    _check_one_group(frame)
    baseline = next((row for row in rows if row.kind == "baseline"), rows[0])
    others = [row for row in rows if row is not baseline]
    failed = [row for row in others if row.status == "FAILED"]
    judged = [row for row in others if row.status != "FAILED"]
    return Standing(
        baseline,
        tuple(
            sorted(
                filter(_feasible, judged),
                key=lambda row: -_judged(row, "score/ocs", absent=-math.inf),
            )
        ),
        tuple(
            sorted(
                (row for row in judged if not _feasible(row)),
                key=lambda row: (
                    _judged(row, "score/violation", absent=math.inf),
                    _judged(row, "accuracy/drop_points", absent=math.inf),
                ),
            )
        ),
        tuple(failed),
    )


def standings(parts: Standing, best: str | None) -> dict[str, str]:
    """Name -> ``baseline``, ``best``, ``feasible`` or ``infeasible``, in the order shown."""
    found = {parts.baseline.name: "baseline"}
    found |= {row.name: "feasible" for row in parts.feasible}
    found |= {row.name: "infeasible" for row in parts.infeasible}
    return found | ({best: "best"} if best in found else {})


def accuracy_key(rows: Iterable[Row]) -> str:
    """The accuracy that the rows' score uses; else the first that they hold.

    Raises:
        NetzipError: when they hold none.
    """
    listed = list(rows)
    for row in listed:
        if row.accuracy:
            return row.accuracy
    accuracies = [m.key for m in metrics() if m.key.startswith("accuracy/") and m.better == "more"]
    for key in accuracies:
        if any(key in row.metrics for row in listed):
            return key
    raise NetzipError(f"the frame holds no accuracy; one of {', '.join(accuracies)} is needed")


def _check(rows: list[Row]) -> None:
    if not rows or not all(row.name for row in rows):
        raise NetzipError("nothing to compare: the frame needs rows, each with a name")
    names = [row.name for row in rows]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise NetzipError(f"two rows are named {doubled!r}; names must differ")
    first = next((row for row in rows if row.kind == "baseline"), rows[0])
    if first.status == "FAILED":
        raise NetzipError(f"the baseline {first.name!r} failed: there is nothing to compare with")


def _check_one_group(frame: pd.DataFrame) -> None:
    for key in _GROUPED:
        values = sorted({str(v) for v in frame[key].dropna()} - {""}) if key in frame else []
        if len(values) > 1:
            raise NetzipError(
                f"rows with different {key} are never ranked together: {', '.join(values)}; "
                "report each group on its own"
            )


def _feasible(row: Row) -> bool:
    return _judged(row, "score/feasible", absent=1.0) > 0


def _judged(row: Row, key: str, *, absent: float) -> float:
    """The validation figure where there is one, else the unprefixed one."""
    for name in (f"validation/{key}", key):
        value = row.metrics.get(name)
        if value is not None:
            return value
    return absent
