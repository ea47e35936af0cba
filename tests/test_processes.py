"""Who is dead: certain, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from netzip_mlflow import processes
from netzip_mlflow.processes import dead, me

linux = pytest.mark.skipif(sys.platform != "linux", reason="by what Linux knows of processes")
WHO = "import json; from netzip_mlflow.processes import me; print(json.dumps(me()), flush=True)"


def test_this_process_lives_and_is_described_alike_always(monkeypatch):
    owner = me()
    assert (owner["pid"], dead(owner)) == (os.getpid(), False)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _process: time.time())
    assert me() == owner == json.loads(json.dumps(owner))


ODD = (None, [], 5, "1", {}, {"boot": "b"}, {"pid": 4194000, "host": "h"})
HERE = {"boot": "b", "namespace": "n", "machine": []}


@pytest.mark.parametrize("owner", ODD)
def test_nobody_is_not_dead(owner):
    assert not dead(owner)


@pytest.mark.parametrize("change", [{"pid": "7"}, {"pid": 10**30}, {"pid": 0}, {"machine": 5}])
def test_what_was_never_said_is_no_process(monkeypatch, change):
    here = HERE | {"pid": 4194000, "ticks": 1}
    monkeypatch.setattr(processes, "_of", lambda _pid: here)
    assert dead(here)
    assert not dead(here | change)


def test_a_process_lives_until_it_has_ended(request):
    child = subprocess.Popen(
        [sys.executable, "-c", f"{WHO}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    request.addfinalizer(child.kill)
    out, _ = child.stdout, child.stdin
    assert out is not None
    owner = json.loads(out.readline())
    assert owner["pid"] == child.pid
    assert not dead(owner)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert dead(owner), "nobody has asked for its status yet"
    child.communicate()
    assert dead(owner)


@linux
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"host": "renamed"}, False),
        ({"pid": 4194000}, True),
        ({"ticks": 1}, True),
        ({"pid": 4194000, "namespace": "pid:[1] time:[1]"}, False),
        ({"boot": "before", "machine": ["this"]}, True),
        ({"boot": "before", "machine": ["other", "this"]}, True),
        ({"boot": "before", "machine": ["other"]}, False),
        ({"boot": "before", "machine": []}, False),
    ],
    ids=[
        "renamed host",
        "ended",
        "number used again",
        "another container's",
        "before this machine's boot",
        "before a network card was taken out",
        "another machine's",
        "a container's before the boot",
    ],
)
def test_who_is_dead(monkeypatch, changes, expected):
    here = me() | {"machine": ["this"]}
    monkeypatch.setattr(processes, "_of", lambda _pid: here)
    assert dead(here | changes) is expected


@linux
def test_a_container_has_no_machine(contained):
    """What it takes for the machine's id comes with its image."""
    done = subprocess.run(
        [*contained, sys.executable, "-c", WHO], capture_output=True, text=True, check=True
    )
    owner = json.loads(done.stdout)
    assert owner["machine"] == []
    assert (owner["host"], owner["boot"]) == (me()["host"], me()["boot"])
    assert not dead(owner), "its number is another process's here"


@linux
def test_copies_of_a_machine_differ_by_their_network_card(monkeypatch, tmp_path):
    """The system's id is copied with the disk; docker0 has an address of its own making."""
    monkeypatch.setattr(processes, "_contained", lambda: False)
    monkeypatch.setattr(processes, "MACHINE_ID", tmp_path / "machine-id")
    monkeypatch.setattr(processes, "INTERFACES", tmp_path / "net")

    def machine(card: str, system: str = "0123") -> list[str]:
        (tmp_path / "machine-id").write_text(system)
        (tmp_path / "net" / "eth0" / "device").mkdir(parents=True, exist_ok=True)
        (tmp_path / "net" / "eth0" / "address").write_text(f"{card}\n")
        (tmp_path / "net" / "docker0").mkdir(exist_ok=True)
        (tmp_path / "net" / "docker0" / "address").write_text("02:42:00:00:00:01\n")
        return processes._machine()

    assert len(machine("dc:a6:32:00:00:01")) == 1
    assert machine("dc:a6:32:00:00:01") == machine("dc:a6:32:00:00:01")
    assert not {*machine("dc:a6:32:00:00:01")} & {*machine("dc:a6:32:00:00:02")}
    assert not {*machine("dc:a6:32:00:00:01")} & {*machine("dc:a6:32:00:00:01", "4567")}
    assert machine("dc:a6:32:00:00:01", "") == []


@pytest.fixture
def elsewhere(monkeypatch):
    """A system without /proc; its machine is told by the addresses of its network cards."""
    monkeypatch.setattr(processes, "LINUX", False)
    monkeypatch.setattr(processes, "PROC", processes.Path("/nowhere"))
    monkeypatch.setattr(processes, "MACHINE_ID", processes.Path("/nowhere"))
    card = SimpleNamespace(family=psutil.AF_LINK, address="DC-A6-32-00-00-01")
    chosen = SimpleNamespace(family=psutil.AF_LINK, address="02:42:00:00:00:01")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"en0": [card], "bridge": [chosen]})
    processes._of.cache_clear()
    yield
    processes._of.cache_clear()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"pid": 4194000}, True),
        ({"started": 1e9}, True),
        ({"host": "other", "pid": 4194000}, False),
        ({"machine": ["other"], "pid": 4194000}, False),
    ],
    ids=["own", "ended", "number used again", "another host's", "another of the same name"],
)
def test_without_proc_the_start_time_tells(changes, expected):
    owner = me()
    assert owner["started"] == pytest.approx(psutil.Process().create_time(), abs=0.02)
    assert len(owner["machine"]) == 1
    assert dead(owner | changes) is expected


@linux
def test_what_earlier_versions_wrote_is_not_believed_in_a_container(monkeypatch):
    owner = {"host": me()["host"], "pid": 4194000, "started": 1e9}
    monkeypatch.setattr(processes, "_contained", lambda: False)
    assert dead(owner)
    monkeypatch.setattr(processes, "_contained", lambda: True)
    assert not dead(owner)
