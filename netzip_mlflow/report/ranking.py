"""Who stands where: baseline first, feasible by score, infeasible by violation, failed last.

A frame is a `pandas.DataFrame` with one row per model. Its columns are metric keys (DESIGN.md,
section 3) and the texts ``name, kind, chain, verdict, reasons, flags, run_id, status, error``; a
metric that does not apply is NaN, or its column is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from netzip_mlflow.errors import NetzipError

__all__ = ["Row", "Standing", "accuracy_key", "arrange", "count", "number", "standings", "text"]

Row = Mapping[str, Any]
_ACCURACIES = ("accuracy/top1", "accuracy/map50_95", "accuracy/map50")
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
        return next((row for row in self.candidates if row["name"] == name), None)


def arrange(frame: pd.DataFrame) -> Standing:
    """Split a frame by standing and order each part.

    The baseline is the row of that kind, else the first. Feasible rows go by OCS, infeasible ones
    by the sum of their violations, then by their drop, all on validation figures where the frame
    has them, as the selection does. A row that nobody judged counts as feasible.

    Raises:
        NetzipError: no row, two rows with one name, a baseline that failed, or several groups.
    """
    rows: list[dict[str, Any]] = [
        {str(key): value for key, value in record.items()} for record in frame.to_dict("records")
    ]
    _check(rows)
    baseline = next((row for row in rows if text(row, "kind") == "baseline"), rows[0])
    others = [row for row in rows if row is not baseline]
    failed = [row for row in others if text(row, "status") == "FAILED"]
    judged = [row for row in others if text(row, "status") != "FAILED"]
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
    found = {str(parts.baseline["name"]): "baseline"}
    found |= {str(row["name"]): "feasible" for row in parts.feasible}
    found |= {str(row["name"]): "infeasible" for row in parts.infeasible}
    return found | ({best: "best"} if best in found else {})


def accuracy_key(rows: Iterable[Row]) -> str:
    """The primary accuracy that rows hold (top-1; for detection mAP50-95, else mAP50).

    Raises:
        NetzipError: when they hold none.
    """
    listed = list(rows)
    for key in _ACCURACIES:
        if any(number(row, key) is not None for row in listed):
            return key
    raise NetzipError(f"the frame holds no accuracy; one of {', '.join(_ACCURACIES)} is needed")


def number(row: Row, key: str) -> float | None:
    """A metric of a row, or None where it is absent."""
    value = row.get(key)
    if value is None or isinstance(value, str):
        return None
    return float(value) if math.isfinite(value) else None


def count(row: Row, key: str) -> int:
    """A whole number that a row holds as a figure or as text; 0 where it is absent."""
    value = row.get(key)
    try:
        return int(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0


def text(row: Row, key: str) -> str:
    """A text of a row; empty where it is absent."""
    value = row.get(key)
    return value.strip() if isinstance(value, str) else ""


def _check(rows: list[dict[str, Any]]) -> None:
    if not rows or not all(text(row, "name") for row in rows):
        raise NetzipError("nothing to compare: the frame needs rows, each with a name")
    names = [row["name"] for row in rows]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise NetzipError(f"two rows are named {doubled!r}; names must differ")
    for key in _GROUPED:
        values = sorted({text(row, key) for row in rows} - {""})
        if len(values) > 1:
            raise NetzipError(
                f"rows with different {key} are never ranked together: {', '.join(values)}; "
                "report each group on its own"
            )
    first = next((row for row in rows if text(row, "kind") == "baseline"), rows[0])
    if text(first, "status") == "FAILED":
        raise NetzipError(
            f"the baseline {first['name']!r} failed: there is nothing to compare with"
        )


def _feasible(row: Row) -> bool:
    return _judged(row, "score/feasible", absent=1.0) > 0


def _judged(row: Row, key: str, *, absent: float) -> float:
    """The validation figure where there is one, else the unprefixed one."""
    for name in (f"validation/{key}", key):
        value = number(row, name)
        if value is not None:
            return value
    return absent
