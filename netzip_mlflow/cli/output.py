"""What a command leaves on stdout: a table for people, or the contract's object for machines."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from netzip_mlflow.databases import without_password

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from netzip_mlflow.measuring import Measurement
    from netzip_mlflow.metrics.across_runtimes import Row
    from netzip_mlflow.runs.bench import Outcome
    from netzip_mlflow.runs.candidates import Candidate
    from netzip_mlflow.scoring import Choice, ScoredRow
    from netzip_mlflow.scoring.basis import Basis
    from netzip_mlflow.stages.measure import Subject
    from netzip_mlflow.stages.search.result import Found
    from netzip_mlflow.statistics import Interval

__all__ = [
    "compare_object",
    "compare_text",
    "compress_object",
    "compress_text",
    "measure_object",
    "measure_text",
    "score_object",
    "score_text",
    "train_object",
    "train_text",
]

# the columns of `measure`, after the accuracy
MEASURED = (
    "accuracy/drop_points",
    "speed/latency_ms",
    "ratio/its",
    "ratio/its_low",
    "ratio/its_high",
    "speed/int8_layers",
    "size/disk_bytes",
    "ratio/C",
    "score/ocs",
)


def train_object(baseline: Candidate) -> dict[str, Any]:
    """The object of `train --json`."""
    metrics = baseline.measured.metrics if baseline.measured else {}
    return {"run_id": baseline.run.id, "metrics": metrics}


def train_text(baseline: Candidate) -> str:
    """The trained network's accuracy, and its run."""
    from netzip_mlflow.metrics.catalogue import find

    measured = baseline.measured
    assert measured is not None  # noqa: S101 (the stage has measured it)
    assert measured.basis is not None  # noqa: S101 (and graded)
    accuracy = find(measured.basis.accuracy_key)
    value = accuracy.show(measured.metrics[accuracy.key])
    return f"baseline: run {baseline.run.id}, test {accuracy.label} {value}"


def compress_object(outcome: Outcome) -> dict[str, Any]:
    """The object of `compress --json`."""
    return {
        "experiment_id": outcome.experiment_id,
        "run_id": outcome.run_id,
        "best": outcome.choice.best,
        "feasible": outcome.choice.feasible,
        "candidates": [
            {
                "name": c.name,
                "run_id": c.run.id,
                "status": "FAILED" if c.error else "FINISHED",
                "metrics": c.measured.metrics if c.measured else {},
            }
            for c in outcome.candidates
        ],
    }


def compress_text(outcome: Outcome, store: str) -> str:
    """The comparison as a table, and where the rest is: run, report and view in MLflow."""
    import pandas as pd

    from netzip_mlflow.report.table import terminal
    from netzip_mlflow.report.views import OVERVIEW, link
    from netzip_mlflow.runs.candidates import row

    frame = pd.DataFrame([row(c).record() for c in outcome.candidates])
    served = store.startswith(("http:", "https:"))
    server = store.rstrip("/") if served else "http://127.0.0.1:5000"
    where = f"experiment {outcome.experiment_id}, run {outcome.run_id}: report.html, plots"
    how = "" if served else f"\nmlflow ui --backend-store-uri {without_password(store)}"
    view = f"{server}/{link(outcome.experiment_id, OVERVIEW)}"
    return f"{_text(terminal(frame, outcome.choice))}{where}{how}\n{view}"


def search_object(found: Found) -> dict[str, Any]:
    """The object of `search --json`: `compress`'s, and the study."""
    return compress_object(found.outcome) | {
        "study": found.study,
        "trials": found.trials,
        "trial": found.trial,
    }


def search_text(found: Found, store: str) -> str:
    """The final comparison, what the study found, and which model was registered, and why."""
    won = found.winner
    what = "best" if won else "least violating"
    named = "" if found.trial is None else f"; {what}: trial {found.trial}"
    line = f"study {found.study}: {found.trials} trials{named}"
    if won is None:
        end = f"nothing keeps every limit, no model was registered: {found.outcome.choice.reason}"
    elif won.registered:
        end = f"registered as {won.registered}: {won.name}, {won.why}"
    else:
        end = f"not registered ({won.refusal}): {won.name}, {won.why}"
    return f"{compress_text(found.outcome, store)}\n{line}\n{end}"


def compare_object(run_id: str, groups: Sequence[tuple[pd.DataFrame, Choice]]) -> dict[str, Any]:
    """The object of `compare --json`: one entry per group of runs that may be ranked together."""
    return {
        "run_id": run_id,
        "groups": [
            {
                "best": choice.best,
                "feasible": choice.feasible,
                "runs": [
                    {"name": name, "run_id": run}
                    for name, run in zip(frame["name"], frame["run_id"], strict=True)
                ],
            }
            for frame, choice in groups
        ],
    }


def compare_text(groups: Sequence[tuple[pd.DataFrame, Choice]]) -> str:
    """One table per group."""
    from netzip_mlflow.report.table import terminal

    return "\n".join(_text(terminal(frame, choice)) for frame, choice in groups)


def measure_object(found: Sequence[tuple[Subject, Measurement]]) -> dict[str, Any]:
    """The object of `measure --json`, the baseline first; `error` says why one was not timed."""
    models = []
    for subject, each in found:
        shown: dict[str, Any] = {"model": subject.name, "uri": subject.uri, "metrics": each.metrics}
        if each.fault:
            shown["error"] = each.fault
        if each.elsewhere:
            shown["runtimes"] = [row.cells() for row in each.elsewhere]
        models.append(shown)
    return {"models": models}


def measure_text(found: Sequence[tuple[Subject, Measurement]]) -> str:
    """A table that needs no pandas, since edge devices have none."""
    from netzip_mlflow.metrics.catalogue import extra, find

    held = {key for _, m in found for key in m.metrics}
    first = next((m.basis.accuracy_key for _, m in found if m.basis), "")
    keys = [k for k in dict.fromkeys((first, *MEASURED, *extra(held))) if k in held]
    metrics = {k: find(k) for k in keys}
    ends = {k: end for k in keys for end in ("low", "high") if k.endswith(f"_{end}")}
    headers = [ends.get(k) or metrics[k].header for k in keys]
    rows = [
        [s.name, *(metrics[k].show(m.metrics[k]) if k in m.metrics else "" for k in keys)]
        for s, m in found
    ]
    notes = [f"{s.name} failed: {m.fault}" for s, m in found if m.fault]
    if any("noisy" in m.flags for _, m in found):
        notes.append("noisy: the baseline against itself is not within the protocol's limits")
    text = _text(_table(["model", *headers], rows, "\n".join(notes) or None))
    return text + _runtimes_text([row for _, m in found for row in m.elsewhere])


def _runtimes_text(rows: Sequence[Row]) -> str:
    """What further runtimes make of the files; nothing where there are none."""

    def shown(interval: Interval | None) -> str:
        if interval is None:
            return ""
        return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

    if not rows:
        return ""
    cells = [
        [
            row.model,
            row.runtime,
            "" if row.max_abs_diff is None else f"{row.max_abs_diff:.1e}",
            *map(shown, (row.latency_ms, row.ratio_its, row.ratio_across)),
        ]
        for row in rows
    ]
    notes = [
        "ratio to the baseline: in the same runtime; across: the runtime that scores / this one",
        *(f"{row.model} in {row.runtime}: {row.absent}" for row in rows if row.absent),
    ]
    headers = ["model", "runtime", "max difference", "latency, ms", "to the baseline", "across"]
    return _text(_table(headers, cells, "\n".join(notes)))


def score_object(rows: Sequence[ScoredRow], basis: Basis) -> dict[str, Any]:
    """The object of `score --json`; a term that took no part is null."""
    return {
        "basis": {
            "accuracy": basis.accuracy,
            "speed": basis.speed,
            "size": basis.size,
            "zeta": basis.zeta,
            "weights": {term: getattr(basis.weights, term) for term in "PSCE"},
            "terms": rows[0].score.terms,
        },
        "rows": [
            {
                "technique": r.row.name,
                **{term: getattr(r.score, term) for term in "PSCE"},
                "ocs": r.score.ocs,
            }
            for r in rows
        ],
    }


def score_text(rows: Sequence[ScoredRow], basis: Basis) -> str:
    """Ratios and OCS to three decimals; the basis stands below."""
    cells = [
        [
            r.row.name,
            *("" if (v := getattr(r.score, term)) is None else f"{v:.3f}" for term in "PSCE"),
            f"{r.score.ocs:.3f}",
            ", ".join(r.row.flags),
        ]
        for r in rows
    ]
    note = f"basis: {basis.label()}; terms: {rows[0].score.terms}"
    return _text(_table(["technique", "P", "S", "C", "E", "OCS", "flags"], cells, note))


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], note: str | None
) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption=note, caption_justify="left", caption_style="")
    for position, header in enumerate(headers):
        table.add_column(header, justify="left" if position == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _text(table: RenderableType) -> str:
    """As text: in colour on a terminal, at least 140 columns wide elsewhere."""
    import sys

    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((140, 24)).columns if terminal else 140
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)  # noqa: S101 (given above)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"
