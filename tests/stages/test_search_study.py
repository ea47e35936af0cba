"""A study goes on, is refused, or ends before its time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.search import told
from netzip_mlflow.stages import search as stages_search
from netzip_mlflow.stages import trial as stages_trial


def test_the_same_command_goes_on_with_a_study(searched, client):
    searched("search.trials=2", study="mine", short=True)
    found = searched("search.trials=4", study="mine", short=True)
    assert [t.user_attrs["netzip.slot"] for t in searched.study(found).trials] == [0, 1, 2, 3]
    again = searched("search.trials=4", study="mine", short=True)
    assert len(searched.study(again).trials) == 4


def test_a_study_of_another_recipe_is_refused_before_any_run(searched):
    searched("search.trials=1", study="mine")
    with pytest.raises(InputError, match="another recipe"):
        searched("search.trials=1", "seed=1", study="mine")


def test_a_trial_that_cannot_be_made_fails_and_the_others_go_on(searched, client):
    space = "search.space=[{factorise: {layers: 'no.such.layer', ratio: [0.3, 0.5]}}]"
    with pytest.raises(NetzipError, match="no trial was judged"):
        searched(space, "search.trials=2", "candidates={}")


def test_a_trial_that_takes_too_long_fails(searched, client):
    with pytest.raises(NetzipError, match="no trial was judged"):
        searched("search.trials=1", "search.trial_timeout=0.0001s", short=True)
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    runs = client.search_runs([experiment.experiment_id], "tags.`netzip.kind` = 'trial'")
    assert [run.info.status for run in runs] == ["FAILED"]
    assert "search.trial_timeout" in runs[0].data.tags["netzip.reason"]


class _Clock:
    """The module `time`, two hours ahead once a trial of a number has begun."""

    def __init__(self, number: int) -> None:
        self.number, self.ahead = number, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def test_the_trial_in_flight_when_the_time_is_over_waits_again(searched, client, monkeypatch):
    clock = _Clock(1)
    for module in (stages_search, stages_trial):
        monkeypatch.setattr(module, "time", clock)
    tried = stages_trial.Trials._tried

    def begun(trials, trial, *given):
        clock.ahead = 7200.0 if trial.number == clock.number else 0.0
        return tried(trials, trial, *given)

    monkeypatch.setattr(stages_trial.Trials, "_tried", begun)
    changes = ("search.trials=3", "search.timeout=1h", "search.keep=1")
    found = searched(*changes, study="mine")
    states = [t.state.name for t in searched.study(found).trials]
    assert states == ["COMPLETE", "FAIL", "WAITING", "WAITING"]
    left = searched.study(found).trials[1]
    assert client.get_run(left.user_attrs[told.RUN]).info.status == "KILLED"
    assert found.trial == 0, "the best so far"

    clock.number = -1
    again = searched.study(searched(*changes, study="mine"))
    assert sorted(t.user_attrs[told.SLOT] for t in told.ended(again)) == [0, 1, 2]
    taken = next(t for t in told.ended(again) if t.user_attrs[told.SLOT] == 1)
    assert taken.params == left.params


def test_a_space_that_is_wrong_is_said_before_any_run(searched):
    with pytest.raises(InputError, match=r"search\.space"):
        searched("search.space=[{ptq: {bits: 8}}]")
