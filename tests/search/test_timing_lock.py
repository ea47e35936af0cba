"""Processes that work and time on one machine, told apart by what they write down."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netzip_mlflow.search.timing_lock import TimingLock

WORKER = """
import sys, time
from pathlib import Path
from netzip_mlflow.search.timing_lock import TimingLock
lock, said = TimingLock(Path(sys.argv[1])), Path(sys.argv[2])
with lock.working():
    print("at work", flush=True)
    while True:
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            said.write_text(str(time.monotonic_ns()))
        lock.pause()
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
def lock(tmp_path: Path):
    made = TimingLock(tmp_path / "locks")
    yield made
    made.close()


def test_a_worker_stands_still_while_another_times_and_goes_on_after(worker, lock, tmp_path):
    said = tmp_path / "said"
    with lock.working():
        for _ in range(5):
            with lock.alone() as got:
                assert got
                before = said.read_text()
                for _ in range(2000):  # long enough for many of its writes
                    assert said.read_text() == before
            while said.read_text() == before:
                assert worker.poll() is None


def test_a_worker_that_is_killed_holds_nobody_up(worker, lock):
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    with lock.working(), lock.alone() as got:
        assert got


def test_two_can_work_at_the_same_time(tmp_path, lock):
    other = TimingLock(tmp_path / "locks")
    gate = os.open(tmp_path / "locks" / "gate", os.O_RDWR)
    with other.working():
        with lock.working():
            lock.pause()
            other.pause()
        with pytest.raises(BlockingIOError):  # the other one works still: nobody may time
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(gate)
    other.close()


def test_it_is_not_quiet_where_a_worker_comes_to_no_pause_point(tmp_path, lock, monkeypatch):
    monkeypatch.setattr("netzip_mlflow.search.timing_lock.PATIENCE_S", 0.05)
    other = TimingLock(tmp_path / "locks")
    with other.working(), lock.working(), lock.alone() as got:
        assert not got
    other.close()
