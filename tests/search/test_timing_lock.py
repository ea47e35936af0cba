"""Processes that work and time on one machine, told apart by what they write down."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netzip_mlflow.search.timing_lock import Quiet

WORKER = """
import sys, time
from pathlib import Path
from netzip_mlflow.search.timing_lock import Quiet
quiet, said = Quiet(Path(sys.argv[1])), Path(sys.argv[2])
with quiet.working():
    print("at work", flush=True)
    while True:
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            said.write_text(str(time.monotonic_ns()))
        quiet.pause()
"""


@pytest.fixture
def worker(tmp_path: Path):
    """A process that writes the time down as long as it works."""
    command = [sys.executable, "-c", WORKER, str(tmp_path / "locks"), str(tmp_path / "said")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def quiet(tmp_path: Path):
    made = Quiet(tmp_path / "locks")
    yield made
    made.close()


def test_a_worker_stands_still_while_another_times_and_goes_on_after(worker, quiet, tmp_path):
    said = tmp_path / "said"
    with quiet.working():
        for _ in range(5):
            with quiet.alone() as got:
                assert got
                before = said.read_text()
                for _ in range(2000):  # long enough for many of its writes
                    assert said.read_text() == before
            while said.read_text() == before:
                assert worker.poll() is None


def test_a_worker_that_is_killed_holds_nobody_up(worker, quiet):
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    with quiet.working(), quiet.alone() as got:
        assert got


def test_two_can_work_at_the_same_time(tmp_path, quiet):
    other = Quiet(tmp_path / "locks")
    gate = os.open(tmp_path / "locks" / "gate", os.O_RDWR)
    with other.working():
        with quiet.working():
            quiet.pause()
            other.pause()
        with pytest.raises(BlockingIOError):  # the other one works still: nobody may time
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(gate)
    other.close()


def test_it_is_not_quiet_where_a_worker_comes_to_no_pause_point(tmp_path, quiet, monkeypatch):
    monkeypatch.setattr("netzip_mlflow.search.timing_lock.PATIENCE_S", 0.05)
    other = Quiet(tmp_path / "locks")
    with other.working(), quiet.working(), quiet.alone() as got:
        assert not got
    other.close()
