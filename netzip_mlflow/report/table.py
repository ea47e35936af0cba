"""The comparison as a table: for a file, for the terminal, and a candidate's story in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from netzip_mlflow.report.explain import explain
from netzip_mlflow.report.quantities import (
    data,
    interval,
    milliseconds,
    percent,
    points,
    quantity,
    times,
)
from netzip_mlflow.report.ranking import Row, Standing, accuracy_key, arrange, number, text
from netzip_mlflow.scoring import Choice

__all__ = ["SUMMARY", "Summary", "comparison", "explain", "summary", "terminal"]

_TEXTS = ("name", "kind", "chain", "status", "verdict", "reasons", "flags", "error", "run_id")
_FAMILIES = ("score", "ratio", "accuracy", "speed", "size", "energy", "fidelity", "robustness")
_LAST = 99


class Summary(NamedTuple):
    """One column: header, a row's cell, whether figures, an interval, only for a wide page."""

    header: str
    cell: Callable[[Row], str]
    figures: bool = True
    interval: bool = False
    wide: bool = False


def comparison(frame: pd.DataFrame) -> pd.DataFrame:
    """All rows and columns for a CSV file, in a stable order.

    Texts first, then the metrics by family (score, ratio, accuracy, ...), test figures before
    validation figures; empty columns are left out; rows stand as in `arrange`. Full precision.
    """
    parts = arrange(frame)
    rows = [dict(row) for row in (*parts.measured, *parts.failed)]
    filled = {key for row in rows for key, value in row.items() if not _empty(value)}
    return pd.DataFrame(rows, columns=sorted(filled, key=_position))


def terminal(frame: pd.DataFrame, best: Choice) -> Table:
    """The columns that matter, as a `rich` table: baseline, feasible, infeasible apart.

    What failed is listed below, with its reason.
    """
    parts = arrange(frame)
    columns = [column for column in summary(parts) if not column.wide]
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        caption=_caption(parts, best),
        caption_justify="left",
        caption_style="",
    )
    for column in columns:
        # an interval may fold below its value where the terminal is narrow; nothing else may
        table.add_column(
            column.header,
            justify="right" if column.figures else "left",
            no_wrap=not column.interval,
            min_width=13 if column.interval else None,
        )
    table.add_row(*_line(columns, parts.baseline), style="yellow")
    for row in parts.feasible:
        chosen = row["name"] == best.best
        table.add_row(
            *_line(columns, row, "★ " if chosen else ""), style="bold green" if chosen else ""
        )
    if parts.infeasible:
        table.add_section()
    for row in parts.infeasible:
        table.add_row(*_line(columns, row, "✗ "), style="dim")
    return table


def summary(parts: Standing) -> list[Summary]:
    """The model, its accuracy, and the columns of `SUMMARY` that have something to say."""
    accuracy = accuracy_key(parts.measured)
    name = quantity(accuracy).label.removesuffix(" accuracy")
    first = [
        Summary("Model", lambda row: str(row["name"]), figures=False),
        Summary(name, lambda row: interval(row, accuracy, percent)),
    ]
    return first + [c for c in SUMMARY if any(c.cell(row) for row in parts.measured)]


def _drop(row: Row) -> str:
    return "" if text(row, "kind") == "baseline" else interval(row, "accuracy/drop_points", points)


def _ratio(key: str) -> Callable[[Row], str]:
    return lambda row: interval(row, key, times)


SUMMARY: tuple[Summary, ...] = (
    Summary("Drop, pts", _drop, interval=True),
    Summary("Latency", lambda row: _value(row, "speed/latency_ms", milliseconds)),
    Summary("Ratio", _ratio("ratio/its"), interval=True),
    Summary("Disk", lambda row: _value(row, "size/disk_bytes", data)),
    Summary("P", lambda row: interval(row, "ratio/P"), wide=True),
    Summary("S", _ratio("ratio/S")),
    Summary("C", _ratio("ratio/C")),
    Summary("E", _ratio("ratio/E")),
    Summary("OCS", _ratio("score/ocs")),
    Summary("Verdict", lambda row: text(row, "verdict"), figures=False),
)


def _value(row: Row, key: str, show: Callable[[float], str] | None = None) -> str:
    value = number(row, key)
    return "" if value is None else (show or quantity(key).show)(value)


def _line(columns: list[Summary], row: Row, mark: str = "") -> list[Text]:
    name, *cells = (Text(column.cell(row)) for column in columns)
    return [Text(mark) + name, *cells]


def _caption(parts: Standing, best: Choice) -> Text:
    lines = [f"★ best: {best.best} ({best.reason})" if best.best else f"no best: {best.reason}"]
    chosen = parts.find(best.best)
    if chosen is not None and number(chosen, "score/feasible") == 0:
        drop = interval(chosen, "accuracy/drop_points", points)
        lines.append(f"  on test {best.best} is outside the constraint: drop {drop} points")
    if parts.infeasible:
        lines.append("✗ outside the constraint on validation, least first; verdicts judge test")
    lines += [
        f"! {row['name']} failed: {text(row, 'error') or 'no reason was recorded'}"
        for row in parts.failed
    ]
    return Text("\n".join(lines))


def _empty(value: Any) -> bool:
    return value is None or value == "" or bool(pd.isna(value))


def _position(column: str) -> tuple[int, int, int, str]:
    if column in _TEXTS:
        return (0, _TEXTS.index(column), 0, column)
    bare = column.removeprefix("validation/")
    family = bare.split("/")[0] if "/" in bare else ""
    rank = _FAMILIES.index(family) if family in _FAMILIES else _LAST
    return (1, int(bare != column), rank, bare)
