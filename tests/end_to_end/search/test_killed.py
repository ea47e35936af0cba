"""A search whose processes are killed at random moments, and the same command again."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import numpy as np
import psutil
import pytest
from optuna.trial import TrialState

from netzip_mlflow.search.study import ATTEMPTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
KILLS = 10


def test_kill_9_at_random_moments_loses_and_doubles_nothing(search):
    draw = np.random.default_rng(int.from_bytes(os.urandom(4)))
    for _ in range(KILLS):
        process, before = search.start(), search.ended()
        wanted = before + int(draw.integers(0, 3))  # trials that it may still end
        while search.ended() < wanted and process.poll() is None:
            time.sleep(0.2)
        time.sleep(float(draw.uniform(0, 4)))  # the moment: in no relation to what it does
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert search.start().wait(600) == 0, search.said()[-3000:]
    search.check()


def test_two_workers_of_which_one_is_killed_make_every_trial_once(search, kill_one):
    process = search.start("--workers", "2")
    kill_one(search, process)
    assert process.wait(600) == 0, search.said()[-3000:]
    search.check()


def test_workers_end_when_their_leader_is_killed(search):
    """They go on with nothing that nobody would compare; the same command does."""
    process = search.start("--workers", "2")
    helper = None
    while helper is None and process.poll() is None:
        owners = {
            trial.user_attrs.get("netzip.owner", {}).get("pid")
            for trial in search.trials(TrialState.RUNNING)
        }
        helper = next(iter(owners - {None, process.pid}), None)
        time.sleep(0.2)
    assert helper is not None, search.said()[-3000:]
    worker = psutil.Process(helper)
    process.kill()
    process.wait()
    psutil.wait_procs([worker], timeout=300)
    assert not worker.is_running()
    states = Counter(t.state for t in search.trials())
    assert states[TrialState.RUNNING] <= 1, "the leader's"
    assert states[TrialState.WAITING] > 0, "it has not made all the others"
    assert search.start().wait(600) == 0, search.said()[-3000:]
    search.check()


def test_sigterm_in_the_same_trial_again_and_again_loses_it_not(search):
    for _ in range(ATTEMPTS + 1):
        process = search.start()
        while not search.trials(TrialState.RUNNING) and process.poll() is None:
            time.sleep(0.05)
        process.terminate()
        process.wait(120)
        assert not search.trials(TrialState.RUNNING)
    assert search.start().wait(600) == 0, search.said()[-3000:]
    search.check()


def test_ctrl_c_ends_with_the_best_so_far(search):
    import mlflow

    process = search.start()
    while search.ended() < 3 and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 0, search.said()[-3000:]
    states = Counter(t.state for t in search.trials())
    assert states[TrialState.RUNNING] == 0
    assert states[TrialState.WAITING] > 0, "the same command would go on"
    client = mlflow.MlflowClient(search.tracking)
    assert client.get_model_version_by_alias("killed", "best-ocs")
    runs = search.runs()
    assert {r.info.status for r in runs} <= {"FINISHED", "KILLED"}
    (parent,) = (r for r in runs if r.data.tags["netzip.kind"] == "search")
    assert parent.info.status == "FINISHED"
