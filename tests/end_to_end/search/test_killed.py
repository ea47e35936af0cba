"""A search whose processes are killed at random moments, and the same command again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

RECIPE = """
name: killed
data: {name: digits, validation: 0.2, test: 0.2, calibration: 64}
model: {name: lenet5}
train: {epochs: 1, optimizer: adamw, lr: 0.004, batch: 64, precision: float32, threads: 1}
measure: {threads: 1, latency: {target: 0.5, max_seconds: 1, min_rounds: 5}, throughput: [8]}
score: {max_drop_points: 20}
search:
  trials: 24
  sampler: random
  keep: 1
  space:
    - prune_l1: {ratio: {low: 0.1, high: 0.9}}
    - one_of: [{ptq: {bits: [8, 4]}}, {half: {}}]
"""
KILLS = 10


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command, as the leader of a group of its own."""
    (folder / "r.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "netzip_mlflow", "search", "r.yaml", "--study", "mine"]
    command += ["--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}", "--quiet", *options]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def study_in(folder: Path) -> optuna.Study | None:
    database = folder / "netzip-search.db"
    if not database.exists():
        return None
    try:
        return optuna.load_study(study_name="mine", storage=f"sqlite:///{database}")
    except KeyError:
        return None


def ended(folder: Path) -> int:
    study = study_in(folder)
    return 0 if study is None else sum(t.state.is_finished() for t in study.trials)


def check(folder: Path) -> None:
    """Every slot ended once in the database, every such trial once in MLflow, nothing else runs."""
    import mlflow

    study = study_in(folder)
    assert study is not None
    done = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert Counter(t.user_attrs["netzip.slot"] for t in done) == Counter(range(24))
    assert not [t for t in study.trials if not t.state.is_finished()]

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "netzip")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {r.info.status for r in runs} <= {"FINISHED", "KILLED"}
    finished = [r for r in runs if r.info.status == "FINISHED"]
    trials = [r for r in finished if r.data.tags["netzip.kind"] == "trial"]
    assert Counter(r.info.run_id for r in trials) == Counter(
        t.user_attrs["netzip.run_id"] for t in done
    )
    (parent,) = (r for r in finished if r.data.tags["netzip.kind"] == "search")
    assert {r.data.tags["mlflow.parentRunId"] for r in trials} == {parent.info.run_id}
    complete = [t for t in done if t.state == TrialState.COMPLETE]
    feasible = [t.value for t in complete if t.user_attrs["netzip.feasible"]]
    assert study.best_value == max(feasible)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kill_9_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    draw = np.random.default_rng(int.from_bytes(os.urandom(4)))
    for _ in range(KILLS):
        process, before = start(tmp_path), ended(tmp_path)
        wanted = before + int(draw.integers(0, 3))  # trials that it may still end
        while ended(tmp_path) < wanted and process.poll() is None:
            time.sleep(0.2)
        time.sleep(float(draw.uniform(0, 4)))  # the moment: in no relation to what it does
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(tmp_path).wait(600) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    check(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_workers_of_which_one_is_killed_make_every_trial_once(tmp_path: Path) -> None:
    import psutil

    process = start(tmp_path, "--workers", "2")
    while ended(tmp_path) < 4 and process.poll() is None:
        time.sleep(0.2)
    (helper,) = psutil.Process(process.pid).children()
    helper.send_signal(signal.SIGKILL)
    assert process.wait(600) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    check(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_ends_with_the_best_so_far(tmp_path: Path) -> None:
    import mlflow

    process = start(tmp_path)
    while ended(tmp_path) < 3 and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    study = study_in(tmp_path)
    assert study is not None
    states = Counter(t.state for t in study.trials)
    assert states[TrialState.RUNNING] == 0
    assert states[TrialState.WAITING] > 0, "the same command would go on"
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_model_version_by_alias("killed", "best-ocs")
    (experiment,) = (e for e in client.search_experiments() if e.name == "netzip")
    runs = client.search_runs([experiment.experiment_id])
    assert {r.info.status for r in runs} <= {"FINISHED", "KILLED"}
    (parent,) = (r for r in runs if r.data.tags["netzip.kind"] == "search")
    assert parent.info.status == "FINISHED"
