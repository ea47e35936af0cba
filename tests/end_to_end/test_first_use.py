"""The first commands in a folder: at once, and killed while MLflow and Optuna make their tables."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

BOTH = """
from netzip_mlflow.search import study
from netzip_mlflow.tracking import Tracker
tracker = Tracker("sqlite:///mlflow.db", "tests")
run = tracker.client.create_run(tracker.experiment_id)
study.create(study.open_storage("sqlite:///studies.db"), "s")
"""
# Dies, or is interrupted, when so many statements have been executed in all.
BEFORE = """
import os, sys, signal
import sqlalchemy.event
count = 0
def executed(*_):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os.kill(os.getpid(), int(sys.argv[2]))
sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", executed)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
KILL, INTERRUPT = "9", "2"
AFTER = "\nprint(count)\n"


@pytest.fixture
def begin(tmp_path):
    """`begin(code, *arguments)`: a process in an empty folder."""

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_three_at_once(begin, tmp_path):
    import mlflow

    processes = [begin(BOTH) for _ in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tests")
    assert len(client.search_runs([experiment.experiment_id])) == 3
    left = {path.name for path in tmp_path.iterdir()}
    assert {name for name in left if not name.startswith("studies.db")} == {"mlflow.db"}


@pytest.mark.parametrize("number", [KILL, INTERRUPT], ids=["kill -9", "Ctrl-C"])
def test_who_is_stopped_in_the_middle_spoils_nothing(begin, tmp_path, number):
    """At every eighth part of what is executed in all, again and again in one folder."""
    (tmp_path / "whole").mkdir()
    whole = begin(f"import os; os.chdir('whole')\n{BEFORE}{BOTH}{AFTER}", "0", KILL)
    out, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    for part in range(1, 8, 2 if number == INTERRUPT else 1):
        process = begin(BEFORE + BOTH, str(int(out) * part // 8), number)
        process.communicate(timeout=300)
        assert process.returncode != 0
    _, err = (last := begin(BOTH)).communicate(timeout=300)
    assert last.returncode == 0, err
    assert not list(tmp_path.glob(".netzip-new-*"))
