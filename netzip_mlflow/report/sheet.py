"""CSV files that a spreadsheet may open: text that it would run as a formula stays text."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["write"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write(
    path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> Path:
    """Write rows as UTF-8 and return `path`; what is absent or not finite is an empty cell.

    Args:
        columns: by default those of all rows, in the order in which they come.
    """
    listed = list(rows)
    if columns is None:
        columns = list(dict.fromkeys(key for row in listed for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(map(_cell, columns))
        lines.writerows([_cell(row.get(column)) for column in columns] for row in listed)
    return path


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) and not _is_number(value) else value
    if value is None or value != value:  # noqa: PLR0124 (NaN and NaT)
        return ""
    return "" if isinstance(value, float) and math.isinf(value) else value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
