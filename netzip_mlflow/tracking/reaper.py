"""Closes our own runs whose process is dead: after kill -9 or a power cut they stay RUNNING."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from netzip_mlflow.processes import dead, me

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["owner_tags", "reap"]

OWNER = "netzip.process"


def owner_tags() -> dict[str, str]:
    """Which process writes a run."""
    return {OWNER: json.dumps(me(), sort_keys=True)}


def reap(client: MlflowClient, experiment_id: str) -> int:
    """Mark the RUNNING runs of processes that are dead for certain as KILLED; returns how many."""
    gone = [run for run in _running(client, experiment_id) if dead(_owner(run.data.tags))]
    for run in gone:
        client.set_tag(
            run.info.run_id, "netzip.reason", "its process ended without a word (killed?)"
        )
        client.set_terminated(run.info.run_id, "KILLED")
    return len(gone)


def _running(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    page, more = None, True
    while more:
        runs = client.search_runs(
            [experiment_id], "attributes.status = 'RUNNING'", max_results=1000, page_token=page
        )
        yield from runs
        page = runs.token
        more = bool(page)


def _owner(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """As `me` gave it, or an earlier version; None where the tags name nobody, or nonsense."""
    try:
        if OWNER in tags:
            return json.loads(tags[OWNER])
        host, pid, started = (tags[f"netzip.{key}"] for key in ("host", "pid", "pid_started"))
        return {"host": host, "pid": int(pid), "started": float(started)}
    except (KeyError, ValueError):
        return None
