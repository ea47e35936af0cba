"""Workers: what they are told, and where nobody else can read it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netzip_mlflow import recipe
from netzip_mlflow.runs.job import Options
from netzip_mlflow.stages.search import workers

STORAGE = "postgresql+psycopg://me:s3cret@db/studies"
TRACKING = "https://me:s3cret@mlflow/"


class Started:
    """A process that was never started: its command line and its environment."""

    def __init__(self, command: list[str], *, env: dict[str, str], **named: Any) -> None:
        named["stderr"].write(b"netzip: 3 writes are in x: netzip resend x\nas a text\n")
        named["stderr"].write(b"netzip: ended by SIGTERM\n")
        self.command, self.environment, self.pid = command, env, 0

    def poll(self) -> int:
        """It has ended."""
        return 0

    def wait(self, _seconds: float = 0) -> int:
        """At once."""
        return 0


@pytest.fixture
def warned() -> list[str]:
    """What the leader's user is told."""
    return []


@pytest.fixture
def started(tmp_path: Path, loads, monkeypatch, warned: list[str]) -> list[Started]:
    """Two, beside a leader."""
    monkeypatch.setattr(workers.subprocess, "Popen", Started)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _process: set(), raising=False)
    monkeypatch.setenv("MLFLOW_RUN_ID", "the leader's")
    monkeypatch.setenv("NETZIP_TEST_DATA", str(tmp_path))
    (tmp_path / "x.npz").touch()
    text = "name: r\ndata: {name: npz, path: '${NETZIP_TEST_DATA}/x.npz'}\nmodel: {name: lenet5}\n"
    given = loads(text + "train: {}\n")
    options = Options(TRACKING, "mine", warn=warned.append)
    work: Any = SimpleNamespace(folder=tmp_path, options=options)
    with workers.crew(work, given, 3, "night", STORAGE, 60.0) as found:
        return list(found.processes)  # type: ignore[arg-type]


def test_no_command_line_holds_a_password(started: list[Started]) -> None:
    assert len(started) == 2
    for each in started:
        assert "s3cret" not in " ".join(each.command)
        assert each.command[-2:] == ["--timeout", "60.0s"]


def test_addresses_are_handed_over_by_environment(started: list[Started]) -> None:
    for each in started:
        assert each.environment["NETZIP_STORAGE"] == STORAGE
        assert each.environment["MLFLOW_TRACKING_URI"] == TRACKING
        assert "MLFLOW_RUN_ID" not in each.environment


def test_a_recipe_s_paths_are_handed_over_as_written(started: list[Started], tmp_path) -> None:
    file = tmp_path / "search.yaml"
    assert str(file) in started[0].command
    assert recipe.load(file).data.path == "${NETZIP_TEST_DATA}/x.npz"


def test_what_a_worker_said_that_nobody_may_miss_is_passed_on(started, warned) -> None:
    lost = "3 writes are in x: netzip resend x"
    assert warned == [f"worker-1: {lost}", f"worker-2: {lost}"]
