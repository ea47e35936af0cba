"""A table of figures measured anywhere: read, checked, scored.

Headers are those of MEASURING.md, section 2 (``technique, top1, latency_ms, macs_g, ...``), or
metric keys (``size/disk_bytes``), so that a ``comparison.csv`` can be read back.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.scoring.basis import Basis
from netzip_mlflow.scoring.columns import columns as published
from netzip_mlflow.scoring.ratios import Score, other_ratios, score

__all__ = ["Row", "ScoredRow", "read_table", "score_table"]

NAME = "technique"
_NAMES = (NAME, "name")
_METRIC_KEY = re.compile(r"(accuracy|speed|size|energy)/[\w.-]+")
# a fraction never exceeds 1; above this a column is read as percent
_PERCENT_FROM = 1.5
_ENERGY_TOLERANCE = 0.10


@dataclass(frozen=True)
class Row:
    """One model of a table: its metrics in the units of their keys, accuracy as a fraction."""

    name: str
    metrics: Mapping[str, float]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoredRow:
    """A row with its score; `ratios` are the further ratios and ``accuracy/drop_points``."""

    row: Row
    score: Score
    ratios: Mapping[str, float]

    def metrics(self) -> dict[str, float]:
        """All metric keys to log."""
        return {**self.row.metrics, **self.ratios, **self.score.metrics()}


def read_table(
    path: str | Path,
    basis: Basis,
    *,
    columns: Mapping[str, str] | None = None,
    baseline: str | None = None,
) -> list[Row]:
    """Read a CSV file of measured figures; the baseline comes first in the result.

    Accuracy columns with a value over 1.5 are percent. Columns that mean nothing here are passed
    over; an empty cell is an absent figure, unless the basis needs it.

    Args:
        path: the file, comma separated, with a header.
        basis: decides which columns must be there and be filled.
        columns: what the file's own headers mean, ``{"acc": "top1"}``.
        baseline: the name of the baseline's row; without it, the first row.

    Raises:
        InputError: naming row and column of everything that is wrong, all at once.
    """
    source = str(path)
    header, lines = _cells(Path(path), source)
    meanings, problems = _meanings(header, columns or {}, basis)
    if problems:
        raise InputError(problems, source)
    table = _Table(header, meanings, basis)
    rows = [table.row(number, cells) for number, cells in lines]
    problems = table.problems + _names(rows, baseline)
    if problems:
        raise InputError(problems, source)
    rows = [_checked(Row(r.name, table.as_fractions(r))) for r in rows]
    if table.problems:
        raise InputError(table.problems, source)
    return sorted(rows, key=lambda r: r.name != (baseline or rows[0].name))


def score_table(rows: Sequence[Row], basis: Basis) -> list[ScoredRow]:
    """Score every row against the first one, which is scored against itself (OCS 0).

    Raises:
        InputError: the problems of all rows at once.
    """
    scored: list[ScoredRow] = []
    problems: dict[str, Problem] = {}
    first = rows[0]
    key = basis.accuracy_key
    for row in rows:
        names = (first.name, row.name)
        try:
            found = score(first.metrics, row.metrics, basis, names=names)
            ratios = other_ratios(first.metrics, row.metrics, basis, names=names)
        except InputError as error:
            problems |= {str(p): p for p in error.problems}
            continue
        ratios["accuracy/drop_points"] = 100 * (first.metrics[key] - row.metrics[key])
        scored.append(ScoredRow(row, found, ratios))
    if problems:
        raise InputError(problems.values())
    return scored


def _cells(path: Path, source: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and numbered rows (a row's number is its line in a plain CSV)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[c.strip() for c in line] for line in csv.reader(file, strict=True)]
    except FileNotFoundError:
        raise InputError("no such file", source) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read as CSV: {error}", source) from None
    filled = [(i, line) for i, line in enumerate(lines, start=1) if any(line)]
    if len(filled) < 3:
        what = f"has {max(len(filled) - 1, 0)} rows below its header"
        raise InputError(Problem("", what, "the baseline's row and at least one more"), source)
    header = filled[0][1]
    problems = [
        Problem(f"header {h!r}", "stands there twice") for h in dict.fromkeys(header)
        if h and header.count(h) > 1
    ]  # fmt: skip
    problems += [
        Problem(f"line {i}", f"has {len(line)} cells", f"{len(header)}, as the header has")
        for i, line in filled[1:]
        if len(line) != len(header)
    ]
    if problems:
        raise InputError(problems, source)
    return header, filled[1:]


def _meanings(
    header: Sequence[str], columns: Mapping[str, str], basis: Basis
) -> tuple[dict[str, str], list[Problem]]:
    """Header -> what it means (`NAME`, a published header, or a metric key), and what is wrong."""
    problems: list[Problem] = []
    known = [NAME, *published()]
    for own, meaning in columns.items():
        if own not in header:
            hint = did_you_mean(own, header)
            problems.append(Problem(f"column {own!r}", "no such column", ", ".join(header), hint))
        if meaning not in known and not _METRIC_KEY.fullmatch(meaning):
            hint = did_you_mean(meaning, known)
            problems.append(
                Problem(f"column {own!r}", f"cannot mean {meaning!r}", ", ".join(known), hint)
            )
    meanings: dict[str, str] = {}
    for own in header:
        meaning = columns.get(own, NAME if own in _NAMES else own)
        if meaning in known or _METRIC_KEY.fullmatch(meaning):
            meanings[own] = meaning
    by_key: dict[str, list[str]] = {}
    for own, meaning in meanings.items():
        by_key.setdefault(_key(meaning), []).append(own)
    problems += [
        Problem(f"columns {', '.join(owners)}", "mean the same")
        for owners in by_key.values()
        if len(owners) > 1
    ]
    problems += _missing(header, set(by_key), basis)
    return meanings, problems


def _missing(header: Sequence[str], keys: set[str], basis: Basis) -> list[Problem]:
    problems = []
    for key, why in (
        (NAME, "the name of each row"),
        (basis.accuracy_key, f"accuracy={basis.accuracy}"),
        (basis.speed_key, f"speed={basis.speed}"),
        (basis.size_key, f"size={basis.size}"),
    ):
        if key not in keys:
            named = next((c for c, (k, _) in published().items() if k == key), key)
            hint = did_you_mean(named, header) or f"or --column HEADER={named}"
            have = ", ".join(h for h in header if h)
            problems.append(
                Problem(f"column {named!r}", f"is missing ({why}); has {have}", "", hint)
            )
    return problems


def _key(meaning: str) -> str:
    return published().get(meaning, (meaning, 1.0))[0]


class _Table:
    """Turns cells into metrics, collects faults, and knows which accuracy columns are percent."""

    def __init__(self, header: Sequence[str], meanings: Mapping[str, str], basis: Basis) -> None:
        self.header = header
        self.meanings = meanings
        self.needed = {basis.accuracy_key, basis.speed_key, basis.size_key}
        self.fractions = {basis.accuracy_key} | {
            key for key, _ in published().values() if key.startswith("accuracy/")
        }
        self.percent: set[str] = set()
        self.problems: list[Problem] = []

    def row(self, line: int, cells: Sequence[str]) -> Row:
        found = dict(zip(self.header, cells, strict=True))
        name = next(found[own] for own, meaning in self.meanings.items() if meaning == NAME)
        label = f"row {name!r}" if name else f"line {line}"
        if not name:
            self.problems.append(Problem(label, "has no name"))
        metrics: dict[str, float] = {}
        for own, meaning in self.meanings.items():
            if meaning == NAME:
                continue
            key = _key(meaning)
            _, factor = published().get(meaning, (meaning, 1.0))
            value = self._number(found[own], f"{label}, column {own!r}", needed=key in self.needed)
            if value is not None:
                metrics[key] = value * factor
                if key in self.fractions and value > _PERCENT_FROM:
                    self.percent.add(key)
        return Row(name, metrics)

    def _number(self, cell: str, where: str, *, needed: bool) -> float | None:
        if not cell:
            if needed:
                self.problems.append(Problem(where, "is empty", "a number: the basis needs it"))
            return None
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        self.problems.append(Problem(where, f"{cell!r}", "a finite number"))
        return None

    def as_fractions(self, row: Row) -> dict[str, float]:
        """The row's metrics with every accuracy in [0, 1]."""
        metrics = dict(row.metrics)
        for key in self.fractions & metrics.keys():
            top = 100 if key in self.percent else 1
            if not 0 <= metrics[key] <= top:
                where = f"row {row.name!r}, column {self._header_of(key)!r}"
                self.problems.append(Problem(where, f"{metrics[key]:g}", f"0 to {top}"))
            metrics[key] /= top
        return metrics

    def _header_of(self, key: str) -> str:
        return next(own for own, meaning in self.meanings.items() if _key(meaning) == key)


def _names(rows: Sequence[Row], baseline: str | None) -> list[Problem]:
    names = [row.name for row in rows]
    problems = [
        Problem(f"row {name!r}", f"stands there {names.count(name)} times", "names that differ")
        for name in dict.fromkeys(names)
        if name and names.count(name) > 1
    ]
    if baseline is not None and baseline not in names:
        hint = did_you_mean(baseline, names)
        problems.append(Problem(f"baseline {baseline!r}", "no such row", ", ".join(names), hint))
    return problems


def _checked(row: Row) -> Row:
    """Flag a row whose energy is not its power x time (MEASURING.md, section 7)."""
    joules, watts = row.metrics.get("energy/joules"), row.metrics.get("energy/watts")
    latency = row.metrics.get("speed/latency_ms")
    if joules is None or watts is None or latency is None or joules <= 0:
        return row
    product = watts * latency / 1000
    if abs(product / joules - 1) <= _ENERGY_TOLERANCE:
        return row
    flag = f"energy {joules:g} J differs from power x latency = {product:.3g} J by over 10 %"
    return Row(row.name, row.metrics, (*row.flags, flag))
