"""Closes our own runs whose process is dead: after kill -9 or a power cut they stay RUNNING."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["owner_tags", "reap"]

HOST, PID, STARTED = "netzip.host", "netzip.pid", "netzip.pid_started"


def owner_tags() -> dict[str, str]:
    """Who writes a run: host, process and its start time (a pid alone is used again)."""
    import psutil

    me = psutil.Process()
    return {HOST: socket.gethostname(), PID: str(me.pid), STARTED: f"{me.create_time():.2f}"}


def reap(client: MlflowClient, experiment_id: str) -> int:
    """Mark the RUNNING runs of dead processes of this host as KILLED; returns how many."""
    wanted = f"attributes.status = 'RUNNING' AND tags.`{HOST}` = '{socket.gethostname()}'"
    dead = [
        run
        for run in client.search_runs([experiment_id], wanted, max_results=1000)
        if not _alive(run.data.tags)
    ]
    for run in dead:
        client.set_tag(
            run.info.run_id, "netzip.reason", "its process ended without a word (killed?)"
        )
        client.set_terminated(run.info.run_id, "KILLED")
    return len(dead)


def _alive(tags: dict[str, str]) -> bool:
    import psutil

    try:
        started = psutil.Process(int(tags.get(PID, "0"))).create_time()
        return abs(started - float(tags.get(STARTED, "0"))) < 1.0
    except psutil.Error:
        return False
