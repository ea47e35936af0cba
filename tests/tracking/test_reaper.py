"""The reaper: dead processes of this host, told apart from living ones and from other hosts'."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from netzip_mlflow.tracking import Tracker
from netzip_mlflow.tracking.reaper import owner_tags, reap

# Opens a parent with two children and waits for a word that never comes.
VICTIM = """
import sys
from netzip_mlflow.tracking import Tracker
with Tracker(sys.argv[1], "tests").parent("compress", "victim") as parent:
    parent.child("baseline", "done").end("FINISHED")
    parent.child("candidate", "open")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def victim(store: str):
    """A process with a run of its own, in the middle of it."""
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, store],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def states(tracker: Tracker) -> dict[str, str]:
    found = tracker.client.search_runs([tracker.experiment_id])
    return {run.info.run_name or "": run.info.status for run in found}


def test_a_living_process_keeps_its_runs_and_a_killed_one_does_not(store, victim):
    before = Tracker(store, "tests")
    assert states(before) == {"victim": "RUNNING", "done": "FINISHED", "open": "RUNNING"}
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    after = Tracker(store, "tests")
    assert states(after) == {"victim": "KILLED", "done": "FINISHED", "open": "KILLED"}
    for run in after.client.search_runs([after.experiment_id]):
        if run.info.status == "KILLED":
            assert "its process ended without a word" in run.data.tags["netzip.reason"]


@pytest.mark.parametrize(
    ("changes", "reaped"),
    [
        ({}, False),
        ({"netzip.host": "another-host", "netzip.pid": "4194000"}, False),
        ({"netzip.pid": "4194000"}, True),
        ({"netzip.pid_started": "1000000000.00"}, True),
        ({"netzip.pid": "1", "netzip.pid_started": "1000000000.00"}, True),
    ],
    ids=["own", "another host's", "dead", "own pid of before the restart", "pid used again"],
)
def test_who_is_dead(tracker, changes, reaped):
    """A container restarts with the same host name and the same pid, so the start time decides."""
    run = tracker.client.create_run(tracker.experiment_id, tags=owner_tags() | changes)
    assert reap(tracker.client, tracker.experiment_id) == int(reaped)
    status = tracker.client.get_run(run.info.run_id).info.status
    assert status == ("KILLED" if reaped else "RUNNING")


def test_runs_without_an_owner_are_nobodys_to_close(tracker):
    run = tracker.client.create_run(tracker.experiment_id)
    assert reap(tracker.client, tracker.experiment_id) == 0
    assert tracker.client.get_run(run.info.run_id).info.status == "RUNNING"


def test_the_owner_is_this_process():
    tags = owner_tags()
    assert tags["netzip.host"] == socket.gethostname()
    assert tags["netzip.pid"] == str(os.getpid())
    assert float(tags["netzip.pid_started"]) > 1e9
