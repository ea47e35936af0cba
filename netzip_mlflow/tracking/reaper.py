"""Closes our own runs whose process is dead: after kill -9 or a power cut they stay RUNNING."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from netzip_mlflow.processes import dead, me

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["GONE", "REASON", "owner_tags", "reap"]

OWNER, REASON = "netzip.process", "netzip.reason"
GONE = "its process ended without a word (killed?)"


def owner_tags() -> dict[str, str]:
    """Which process writes a run."""
    return {OWNER: json.dumps(me(), sort_keys=True)}


def reap(client: MlflowClient, experiment_id: str) -> int:
    """Mark the RUNNING runs of processes that are dead for certain as KILLED; returns how many."""
    dead_ones = [run for run in _running(client, experiment_id) if dead(_owner(run.data.tags))]
    for run in dead_ones:
        if REASON not in run.data.tags:
            client.set_tag(run.info.run_id, REASON, GONE)
        client.set_terminated(run.info.run_id, "KILLED")
    return len(dead_ones)


def _running(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    page, more = None, True
    while more:
        runs = client.search_runs(
            [experiment_id], "attributes.status = 'RUNNING'", max_results=1000, page_token=page
        )
        yield from runs
        page = runs.token
        more = bool(page)


def _owner(tags: Mapping[str, str]) -> Any:
    """As `me` gave it, or an earlier version; None where the tags name nobody, or no JSON."""
    try:
        if OWNER in tags:
            return json.loads(tags[OWNER])
        host, pid, started = (tags[f"netzip.{key}"] for key in ("host", "pid", "pid_started"))
        return {"host": host, "pid": int(pid), "started": float(started)}
    except (KeyError, ValueError, RecursionError):
        return None
