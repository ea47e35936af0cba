"""Scoring a table that was measured anywhere; with a store, its rows become runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netzip_mlflow import scoring
from netzip_mlflow.metrics.row import join_flags
from netzip_mlflow.runs.job import Options, job, open_tracker, version_tag
from netzip_mlflow.scoring.columns import accuracies

if TYPE_CHECKING:
    from netzip_mlflow.scoring import Basis, ScoredRow

__all__ = ["find_accuracy", "log", "score"]


def score(
    path: Path, basis: Basis, *, columns: Mapping[str, str], baseline: str | None
) -> list[ScoredRow]:
    """Every row of a CSV table against its baseline, which comes first.

    Raises:
        InputError: naming row and column of everything that is wrong.
    """
    rows = scoring.read_table(path, basis, columns=columns, baseline=baseline)
    return scoring.score_table(rows, basis)


def find_accuracy(path: Path, columns: Mapping[str, str]) -> str:
    """The first known accuracy among a table's headers; the first of all where there is none (its
    absence is then reported with the table's other problems)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            headers = [columns.get(h.strip(), h.strip()) for h in next(csv.reader(file), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        headers = []
    bare = [h.removeprefix("accuracy/") for h in headers]
    return next((name for name in accuracies() if name in bare), accuracies()[0])


def log(rows: Sequence[ScoredRow], name: str, basis: Basis, options: Options) -> str:
    """Write each row as a run of kind `scored`, below one parent; returns the parent's id."""
    with job("compare", name, options, open_tracker(options)) as work:
        work.run.log(tags={**version_tag(), "netzip.basis": basis.label()})
        origin = ""
        for position, row in enumerate(rows):
            run = work.run.child("scored", row.row.name)
            origin = origin or run.id
            kind = {"netzip.kind": "baseline"} if position == 0 else {}
            run.log(
                row.metrics(),
                tags={
                    "netzip.baseline": origin,
                    "netzip.basis": basis.label(),
                    "netzip.terms": row.score.terms,
                    "netzip.flags": join_flags(row.row.flags),
                    **kind,
                },
            )
            run.end("FINISHED")
        return work.run.id
