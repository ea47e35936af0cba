"""A search whose trials are tasks of Ray's own test cluster, of which a node is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from optuna.trial import TrialState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
NODES = Path(__file__).with_name("ray_nodes.py")


class Nodes:
    """A cluster of two nodes with one CPU each."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(NODES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.address = self._said()["address"]
        me = psutil.Process(self._process.pid)
        self.processes = [me, *me.children(recursive=True)]

    def kill(self, pid: int) -> None:
        """The node on which a process runs, and all that runs on it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pid}\n")
        self._process.stdin.flush()
        self._said()

    def close(self) -> list[psutil.Process]:
        """End the cluster; gives what did not end with it, killed by now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        _, left = psutil.wait_procs(self.processes, timeout=30)
        for process in left:
            process.kill()
        return left

    def _said(self) -> dict[str, str]:
        """The next line that is ours: Ray's own start with something else."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError("the cluster has ended")


@pytest.fixture(autouse=True)
def place(monkeypatch) -> Iterator[None]:
    """A folder for Ray below a short path: names of sockets may have 107 characters."""
    below = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with below as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


@pytest.fixture
def nodes(place) -> Iterator[Nodes]:
    """Running; nothing of it is left afterwards."""
    cluster = Nodes()
    try:
        yield cluster
    finally:
        left = cluster.close()
    assert left == []


def test_a_node_is_killed_and_every_trial_is_made_once(
    apart, nodes, until, monkeypatch, postgresql
):
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    process = apart.start("--engine", "ray")

    held = []

    def one_of_two_is_held() -> bool:
        assert process.poll() is None, apart.said()[-3000:]
        running = apart.trials(TrialState.RUNNING)
        running = [t for t in running if "netzip.owner" in t.user_attrs]
        if len(running) < 2 or apart.ended() < 4:
            return False
        held[:] = running[:1]
        owner = psutil.Process(held[0].user_attrs["netzip.owner"]["pid"])
        assert owner.pid != process.pid, "the leader makes none"
        return apart.hold(owner, held[0].number)

    until(one_of_two_is_held, "both nodes make trials", 600)
    victim = held[0]
    owner = victim.user_attrs["netzip.owner"]["pid"]
    nodes.kill(owner)
    assert process.wait(600) == 0, apart.said()[-3000:]
    apart.check()
    (lost,) = (t for t in apart.trials() if t.number == victim.number)
    assert lost.state == TrialState.FAIL
    owners = {t.user_attrs["netzip.owner"]["pid"] for t in apart.trials(TrialState.COMPLETE)}
    assert process.pid not in owners
    assert len(owners - {owner}) >= 1
    assert postgresql.PASSWORD not in apart.said()


def test_without_a_cluster_it_starts_one_on_this_machine(search):
    process = search.start("--engine", "ray", "--trials", "3")
    assert process.wait(600) == 0, search.said()[-3000:]
    search.check(3)
    owners = {t.user_attrs["netzip.owner"]["pid"] for t in search.trials()}
    assert process.pid not in owners


def test_a_cluster_that_is_not_there_is_one_clear_message(search, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert search.start("--engine", "ray").wait(300) == 2, search.said()
    assert "netzip: RAY_ADDRESS: 127.0.0.1:1 cannot be used" in search.said()
    assert "Traceback" not in search.said()
