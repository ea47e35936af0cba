"""The reaper: dead processes of this host, told apart from living ones and from other hosts'."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from netzip_mlflow import processes
from netzip_mlflow.tracking import Tracker
from netzip_mlflow.tracking.reaper import owner_tags, reap
from netzip_mlflow.tracking.writes import Write

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


def test_a_clock_that_is_set_ends_nobody(tracker, monkeypatch):
    """psutil's start times on Linux are counted from the clock's idea of the boot."""
    run = tracker.client.create_run(tracker.experiment_id, tags=owner_tags())
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: real(process) + 3)
    assert reap(tracker.client, tracker.experiment_id) == 0
    assert tracker.client.get_run(run.info.run_id).info.status == "RUNNING"


def test_two_containers_with_one_host_name(store, contained):
    """Neither sees the other's processes, whose numbers mean others here."""
    command = [*contained, sys.executable, "-c", VICTIM, store]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "ready\n"
            assert states(Tracker(store, "tests"))["victim"] == "RUNNING"
            process.stdin.close()  # the word to go on
            process.wait(60)
        finally:
            process.kill()
    assert states(Tracker(store, "tests"))["victim"] == "FINISHED"


@pytest.mark.parametrize(
    ("host", "pid", "started", "reaped"),
    [
        ("", os.getpid(), psutil.Process().create_time() + 3, False),
        ("another-host", 4194000, 1e9, False),
        ("", 4194000, 1e9, True),
        ("", os.getpid(), 1e9, True),
    ],
    ids=["own, by a clock set since", "another host's", "dead", "pid used again"],
)
def test_runs_of_earlier_versions(tracker, monkeypatch, host, pid, started, reaped):
    monkeypatch.setattr(processes, "_contained", lambda: False)
    host = host or socket.gethostname()
    tags = {"netzip.host": host, "netzip.pid": str(pid), "netzip.pid_started": f"{started:.2f}"}
    run = tracker.client.create_run(tracker.experiment_id, tags=tags)
    assert reap(tracker.client, tracker.experiment_id) == int(reaped)
    status = tracker.client.get_run(run.info.run_id).info.status
    assert status == ("KILLED" if reaped else "RUNNING")


def test_more_runs_than_a_page_holds(tracker, monkeypatch):
    """Those of others come first."""
    dead = owner_tags() | {"netzip.process": json.dumps(processes.me() | {"pid": 4194000})}
    tracker.client.create_run(tracker.experiment_id, tags=dead)
    for _ in range(3):
        tracker.client.create_run(tracker.experiment_id, tags=owner_tags())
    search = tracker.client.search_runs
    monkeypatch.setattr(
        tracker.client, "search_runs", lambda *a, **k: search(*a, **(k | {"max_results": 2}))
    )
    assert reap(tracker.client, tracker.experiment_id) == 1


@pytest.fixture
def gone(monkeypatch) -> str:
    """The tag of an owner who is dead."""
    monkeypatch.setattr("netzip_mlflow.tracking.reaper.dead", lambda owner: owner == {"pid": 0})
    return json.dumps({"pid": 0})


def test_a_reason_that_is_there_stays(tracker, gone):
    tags = {"netzip.process": gone, "netzip.reason": "infeasible: drop 3.1"}
    run = tracker.client.create_run(tracker.experiment_id, tags=tags)
    assert reap(tracker.client, tracker.experiment_id) == 1
    reaped = tracker.client.get_run(run.info.run_id)
    assert (reaped.info.status, reaped.data.tags["netzip.reason"]) == (
        "KILLED",
        "infeasible: drop 3.1",
    )


def test_what_is_sent_late_ends_a_run_as_it_was_to_end(tracker, gone):
    run = tracker.client.create_run(tracker.experiment_id, tags={"netzip.process": gone})
    assert reap(tracker.client, tracker.experiment_id) == 1
    end = Write("end", run.info.run_id, "small", 1, {"status": "FINISHED"})
    tracker.sender(end, True)
    late = tracker.client.get_run(run.info.run_id)
    assert late.info.status == "FINISHED"
    assert "netzip.reason" not in late.data.tags


@pytest.mark.parametrize("owner", ["{}", "[]", "5", '{"boot": "b", "pid": "1"}', "[" * 5000])
def test_a_tag_that_is_none_of_ours_is_nobodys(tracker, store, owner):
    tracker.client.create_run(tracker.experiment_id, tags={"netzip.process": owner})
    assert states(Tracker(store, "tests")).popitem()[1] == "RUNNING"


def test_runs_without_an_owner_are_nobodys_to_close(tracker):
    for tags in ({}, {"netzip.process": "?"}, {"netzip.host": socket.gethostname()}):
        run = tracker.client.create_run(tracker.experiment_id, tags=tags)
    assert reap(tracker.client, tracker.experiment_id) == 0
    assert tracker.client.get_run(run.info.run_id).info.status == "RUNNING"


def test_the_owner_is_this_process():
    """In one tag that earlier versions do not read: they would end the living by it."""
    tags = owner_tags()
    assert list(tags) == ["netzip.process"]
    assert json.loads(tags["netzip.process"]) == processes.me()
