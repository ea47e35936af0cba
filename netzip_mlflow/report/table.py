"""The comparison as a table: for a file, for the terminal, and a candidate's story in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from netzip_mlflow.metrics.catalogue import extra, find
from netzip_mlflow.metrics.row import TEXTS, Row
from netzip_mlflow.metrics.scores import DROP
from netzip_mlflow.report.cells import interval
from netzip_mlflow.report.explain import explain
from netzip_mlflow.report.ranking import Standing, accuracy_key, arrange
from netzip_mlflow.scoring import Choice

__all__ = ["Summary", "comparison", "explain", "summary", "terminal"]

# the columns of every comparison, after the accuracy; _PLAIN: without its interval
COLUMNS = (
    DROP.key,
    "speed/latency_ms",
    "ratio/its",
    "size/disk_bytes",
    "ratio/P",
    "ratio/S",
    "ratio/C",
    "ratio/E",
    "score/ocs",
)
_PLAIN = ("speed/latency_ms",)
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
    rows = [row.record() for row in (*parts.measured, *parts.failed)]
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
        chosen = row.name == best.best
        table.add_row(
            *_line(columns, row, "★ " if chosen else ""), style="bold green" if chosen else ""
        )
    if parts.infeasible:
        table.add_section()
    for row in parts.infeasible:
        table.add_row(*_line(columns, row, "✗ "), style="dim")
    return table


def summary(parts: Standing) -> list[Summary]:
    """The model, its accuracy, and the columns of metrics with a header that rows hold."""
    accuracy = accuracy_key(parts.measured)
    further = extra(key for row in parts.measured for key in row.metrics)
    keys = dict.fromkeys((accuracy, *COLUMNS, *further))
    columns = [
        Summary("Model", lambda row: row.name, figures=False),
        *map(_column, keys),
        Summary("Verdict", lambda row: row.verdict, figures=False),
    ]
    return [column for column in columns if any(column.cell(row) for row in parts.measured)]


def _column(key: str) -> Summary:
    """One metric: its interval where a column has one in every comparison."""
    what = find(key)

    def cell(row: Row) -> str:
        if key == DROP.key and row.kind == "baseline":
            return ""
        if key in _PLAIN:
            return what.show(row.metrics[key]) if key in row.metrics else ""
        return interval(row, key)

    return Summary(
        what.header or what.label,
        cell,
        interval=what.interval and key not in _PLAIN,
        wide=key == "ratio/P",
    )


def _line(columns: list[Summary], row: Row, mark: str = "") -> list[Text]:
    name, *cells = (Text(column.cell(row)) for column in columns)
    return [Text(mark) + name, *cells]


def _caption(parts: Standing, best: Choice) -> Text:
    lines = [f"★ best: {best.best} ({best.reason})" if best.best else f"no best: {best.reason}"]
    chosen = parts.find(best.best)
    if chosen is not None and chosen.metrics.get("score/feasible") == 0:
        drop = interval(chosen, DROP.key)
        lines.append(f"  on test {best.best} is outside the constraint: drop {drop} points")
    if parts.infeasible:
        lines.append("✗ outside the constraint on validation, least first; verdicts judge test")
    lines += [
        f"! {row.name} failed: {row.error or 'no reason was recorded'}" for row in parts.failed
    ]
    return Text("\n".join(lines))


def _empty(value: Any) -> bool:
    return value is None or value == "" or bool(pd.isna(value))


def _position(column: str) -> tuple[int, int, int, str]:
    if column in TEXTS:
        return (0, TEXTS.index(column), 0, column)
    bare = column.removeprefix("validation/")
    family = bare.split("/")[0] if "/" in bare else ""
    rank = _FAMILIES.index(family) if family in _FAMILIES else _LAST
    return (1, int(bare != column), rank, bare)
