"""Runs that are in MLflow already: read, and grouped by what may stand in one table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.metrics.row import Row, split_facts, split_flags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

    from netzip_mlflow.tracking.runs import Tracker

__all__ = ["GROUPED", "accuracy_key", "grouped", "is_baseline", "read", "row"]

COMPARED = ("baseline", "candidate", "trial", "measurement", "scored")
GROUPED = ("basis", "terms", "baseline", "fingerprint")


def read(tracker: Tracker, runs: Sequence[str], where: str, source: str | None) -> list[MlflowRun]:
    """The runs asked for, parents' children too, and the baselines they were measured with."""
    from mlflow.exceptions import MlflowException

    client = tracker.client
    if runs:
        try:
            found = [client.get_run(run_id) for run_id in runs]
        except MlflowException as error:
            raise InputError(Problem("--runs", f"cannot be read: {error}", "ids of runs")) from None
        parents = [r for r in found if r.data.tags.get("netzip.kind") not in COMPARED]
        for parent in parents:
            below = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
            found += _search(client, below, parent.info.experiment_id)
    else:
        found = _search(client, where, _experiment(tracker, source))
    once = {r.info.run_id: r for r in found if r.data.tags.get("netzip.kind") in COMPARED}
    origins = {r.data.tags.get("netzip.baseline", "") for r in once.values()} - {"", *once}
    return [*once.values(), *(client.get_run(origin) for origin in origins)]


def _experiment(tracker: Tracker, source: str | None) -> str:
    if source is None:
        return tracker.experiment_id
    known = {e.name: e.experiment_id for e in tracker.client.search_experiments()}
    if source in known.values():
        return source
    if source not in known:
        hint = did_you_mean(source, known)
        raise InputError(
            Problem("--experiment", f"{source!r} is not in the store", ", ".join(known), hint)
        )
    return known[source]


def _search(client: MlflowClient, where: str, experiment: str) -> list[MlflowRun]:
    from mlflow.exceptions import MlflowException

    found, token = [], None
    while True:
        try:
            page = client.search_runs([experiment], where, max_results=1000, page_token=token)
        except MlflowException as error:
            raise InputError(Problem("--filter", f"{where!r} is refused: {error}")) from None
        found += page
        token = page.token
        if not token:
            return found


def grouped(runs: Iterable[MlflowRun]) -> list[list[MlflowRun]]:
    """Runs that may stand in one table, the baseline first; a baseline alone is no group."""
    groups: dict[tuple[str, ...], list[MlflowRun]] = {}
    for run in sorted(runs, key=lambda r: r.info.start_time):
        if run.info.status == "FINISHED" and "score/ocs" in run.data.metrics:
            key = tuple(run.data.tags.get(f"netzip.{name}", "") for name in GROUPED)
            groups.setdefault(key, []).append(run)
    ordered = [sorted(rows, key=lambda r: not is_baseline(r)) for rows in groups.values()]
    return [rows for rows in ordered if len(rows) > 1 and is_baseline(rows[0])]


def is_baseline(run: MlflowRun) -> bool:
    """Whatever its kind: a measurement's baseline is a measurement too."""
    return run.data.tags.get("netzip.baseline") == run.info.run_id


def row(run: MlflowRun) -> Row:
    """One row of a comparison."""
    tags = run.data.tags
    facts, absent = split_facts(json.loads(tags.get("netzip.facts", "{}")))
    return Row(
        name=str(run.info.run_name),
        kind="baseline" if is_baseline(run) else tags["netzip.kind"],
        chain=tags.get("netzip.chain", ""),
        status=run.info.status,
        verdict=tags.get("netzip.verdict", ""),
        reasons=tuple(filter(None, tags.get("netzip.reason", "").split("\n"))),
        flags=split_flags(tags.get("netzip.flags", "")),
        run_id=run.info.run_id,
        accuracy=accuracy_key(run),
        metrics=run.data.metrics,
        facts=facts,
        absent=absent,
    )


def accuracy_key(run: MlflowRun) -> str:
    """Of the accuracy that the run's score uses; empty where its basis names none."""
    parts = run.data.tags.get("netzip.basis", "").split()
    named = next((part for part in parts if part.startswith("accuracy=")), "")
    return named.replace("=", "/")
