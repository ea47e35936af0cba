"""Studies in a real database; processes that die are played by their attributes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from netzip_mlflow import processes
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.search import outages
from netzip_mlflow.search import study as studies
from netzip_mlflow.search.study import Failed, GivenBack, Planned

GONE = processes.me() | {"pid": 2**22 - 1}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    storage = studies.open_storage(f"sqlite:///{tmp_path / 's.db'}")
    made = studies.create(storage, "s")
    made.sampler = studies.sampler("random", 0)
    return made


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def ask(study: optuna.Study) -> optuna.Trial:
    """The next trial, outside of `work`."""
    with pytest.warns(UserWarning, match="Heartbeat"):
        return study.ask()


def slots(study: optuna.Study, *states: TrialState) -> list[int]:
    return sorted(t.user_attrs[studies.SLOT] for t in study.get_trials(states=states or None))


def test_a_study_ends_with_as_many_trials_as_were_planned(study):
    studies.plan(study, 5)
    ended = []
    studies.work(study, objective, after=lambda t: ended.append(t.number))
    assert slots(study, TrialState.COMPLETE) == [0, 1, 2, 3, 4]
    assert ended == [0, 1, 2, 3, 4]
    studies.plan(study, 5)
    studies.work(study, objective)
    assert len(study.trials) == 5, "nothing is left to do"
    studies.plan(study, 7)
    studies.work(study, objective)
    assert slots(study, TrialState.COMPLETE) == [*range(7)]


def test_the_first_ones_suggest_what_was_planned(study):
    studies.plan(study, 3, lambda: [Planned("mine", {"x": 0.25})])
    studies.work(study, objective)
    first = study.trials[0]
    assert (first.params, first.user_attrs[studies.NAME]) == ({"x": 0.25}, "mine")
    assert study.trials[1].params != first.params


def test_a_process_that_dies_while_it_plans_loses_none_of_the_first(study, monkeypatch):
    enqueue, asked = study.enqueue_trial, []

    def first() -> list[Planned]:
        asked.append(True)
        return [Planned(str(x), {"x": x}) for x in (0.1, 0.2, 0.3)]

    def dies(*given, **named) -> None:
        if len(study.trials) == 2:
            raise KeyboardInterrupt
        enqueue(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(study, "enqueue_trial", dies)
        with pytest.raises(KeyboardInterrupt):
            studies.plan(study, 4, first)
    studies.plan(study, 4, first)
    studies.work(study, objective)
    assert [t.params["x"] for t in study.trials[:3]] == [0.1, 0.2, 0.3]
    assert slots(study, TrialState.COMPLETE) == [0, 1, 2, 3]
    studies.plan(study, 6, first)
    assert len(asked) == 2, "a study that is planned is not planned anew"
    assert not study.trials[4].user_attrs.get(studies.NAME)


def test_a_failure_spends_its_slot_and_says_why(study):
    def some_fail(trial: optuna.Trial) -> float:
        if trial.number == 1:
            raise Failed("a layer would be empty")
        return objective(trial)

    studies.plan(study, 3)
    studies.work(study, some_fail)
    studies.plan(study, 3)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[1].user_attrs[studies.ERROR] == "a layer would be empty"


def test_an_interrupted_trial_waits_again_with_its_parameters(study):
    def interrupted(trial: optuna.Trial) -> float:
        value = objective(trial)
        trial.set_user_attr("netzip.feasible", True)
        trial.set_constraint("c", 1.0)
        if trial.number == 1:
            raise KeyboardInterrupt
        return value

    studies.plan(study, 3)
    with pytest.raises(KeyboardInterrupt):
        studies.work(study, interrupted)
    assert studies.progress(study) == studies.Progress(planned=3, waiting=2, running=0)
    lost = study.trials[1].params
    studies.work(study, objective)
    again = study.trials[3]
    assert (again.params, again.user_attrs[studies.SLOT]) == (lost, 1)
    assert "netzip.feasible" not in again.user_attrs
    assert again.constraints == {}
    assert slots(study, TrialState.COMPLETE) == [0, 1, 2]


def test_the_trial_of_a_dead_process_is_planned_again_but_not_for_ever(study):
    studies.plan(study, 1)
    while study.get_trials(states=[TrialState.WAITING]):
        trial = ask(study)
        trial.set_user_attr(studies.OWNER, GONE)
        objective(trial)
        studies.plan(study, 1)
    assert [t.state for t in study.trials] == [TrialState.FAIL] * studies.ATTEMPTS
    assert len({t.params["x"] for t in study.trials}) == 1


def test_the_trial_of_a_living_process_is_left_alone(study):
    studies.plan(study, 2)
    trial = ask(study)
    trial.set_user_attr(studies.OWNER, processes.me())
    assert studies.plan(study, 2) == studies.Progress(planned=2, waiting=1, running=1)


def test_work_stops_when_it_is_told_to(study):
    studies.plan(study, 5)
    seen = []
    studies.work(study, objective, go_on=lambda: len(seen) < 2, after=seen.append)
    assert studies.progress(study) == studies.Progress(planned=5, waiting=3, running=0)


WORKER = """
import sys
from netzip_mlflow.search import study as studies
storage = studies.open_storage(sys.argv[1])
study = studies.create(storage, "s")
study.sampler = studies.sampler("random", int(sys.argv[2]))
studies.work(study, lambda trial: trial.suggest_float("x", 0, 1))
"""


def test_several_processes_share_the_trials_and_none_is_made_twice(study, tmp_path):
    studies.plan(study, 24)
    url = f"sqlite:///{tmp_path / 's.db'}"
    command = [sys.executable, "-c", WORKER, url]
    workers = [subprocess.Popen([*command, str(seed)]) for seed in range(3)]
    assert [w.wait(120) for w in workers] == [0, 0, 0]
    done = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert Counter(t.user_attrs[studies.SLOT] for t in done) == Counter(range(24))


@pytest.mark.parametrize("name", ["tpe", "gp", "nsga2", "random"])
def test_every_sampler_of_the_recipe_is_one(name, study):
    study.sampler = studies.sampler(name, 0)
    studies.plan(study, 2)
    studies.work(study, objective)
    assert slots(study, TrialState.COMPLETE) == [0, 1]


@pytest.mark.parametrize(
    "url", ["sqlite:////no/such/folder/s.db", "postgresql+nodriver://h/d", "not a url"]
)
def test_a_database_that_cannot_be_used_is_one_clear_message(url):
    with pytest.raises(InputError, match=r"storage: .* cannot be used"):
        studies.open_storage(url)


def test_a_study_of_something_else_is_refused(study):
    optuna.create_study(storage=study._storage, study_name="other", direction="minimize")
    with pytest.raises(InputError, match="made by something else"):
        studies.create(study._storage, "other")


class Signal(BaseException):
    """As SIGTERM is raised: Optuna knows nothing of it."""


@pytest.mark.parametrize("stop", [GivenBack, KeyboardInterrupt, Signal, SystemExit])
def test_what_was_given_back_waits_again_however_often(study, stop):
    """The time of a search may be over, or its process be ended, many times in the same trial."""
    studies.plan(study, 1)

    def given_back(trial: optuna.Trial) -> float:
        objective(trial)
        raise stop

    for _ in range(studies.ATTEMPTS + 2):
        with pytest.raises(stop):
            studies.work(study, given_back)
    assert studies.progress(study) == studies.Progress(planned=1, waiting=1, running=0)
    studies.work(study, objective)
    assert len({t.params["x"] for t in study.trials}) == 1
    assert slots(study, TrialState.COMPLETE) == [0]


def test_a_front_is_a_study_of_its_own(tmp_path):
    storage = studies.open_storage(f"sqlite:///{tmp_path / 's.db'}")
    made = studies.create(storage, "front", 2)
    made.sampler = studies.sampler("nsga2", 0)
    studies.plan(made, 3)
    studies.work(made, lambda t: (t.suggest_float("x", 0, 1), t.suggest_float("y", 0, 1)))
    assert slots(made, TrialState.COMPLETE) == [0, 1, 2]
    with pytest.raises(InputError, match="made by something else"):
        studies.create(storage, "front")


def test_a_signal_while_the_result_is_told_spends_no_attempt(study, monkeypatch):
    """The objective has ended, and the database does not have its value."""
    studies.plan(study, 1)
    tell = study._storage.set_trial_state_values

    def interrupted(trial_id, state, values=None):
        if values is not None:
            raise Signal
        return tell(trial_id, state, values)

    for _ in range(studies.ATTEMPTS + 2):
        with monkeypatch.context() as patch:
            patch.setattr(study._storage, "set_trial_state_values", interrupted)
            with pytest.raises(Signal):
                studies.work(study, objective)
        assert studies.progress(study) == studies.Progress(planned=1, waiting=1, running=0)
    studies.work(study, objective)
    assert slots(study, TrialState.COMPLETE) == [0]


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`begin()` takes the table of trials away; it is back after the second line that is said."""
    monkeypatch.setattr(outages, "RETRY_S", 0.01)
    said: list[str] = []

    def change(before: str, after: str) -> None:
        with sqlite3.connect(tmp_path / "s.db", timeout=30) as file:
            file.execute(f"ALTER TABLE {before} RENAME TO {after}")
        file.close()

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            change("gone", "trials")

    return SimpleNamespace(begin=lambda: change("trials", "gone"), say=say, said=said)


@pytest.mark.parametrize("when", ["within a trial", "as a trial is told", "between two"])
def test_a_database_that_is_away_for_a_while_ends_no_search_and_spends_no_slot(study, outage, when):
    studies.plan(study, 3)
    begun: list[int] = []

    def tried(trial: optuna.Trial) -> float:
        value = objective(trial)
        begun.append(trial.number)
        if len(begun) == 1 and when != "between two":
            outage.begin()
            if when == "within a trial":
                trial.set_user_attr("key", "value")
        return value

    def after(_trial: object) -> None:
        if len(begun) == 1 and when == "between two":
            outage.begin()

    studies.work(study, tried, after=after, say=outage.say)
    assert slots(study, TrialState.COMPLETE) == [0, 1, 2]
    assert not study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])
    assert all("does not answer" in line for line in outage.said)
    assert len(outage.said) == 2


def test_a_database_that_stays_away_ends_the_search_in_time(study, outage, monkeypatch):
    monkeypatch.setattr(outages, "AWAY_S", 0.0)
    studies.plan(study, 1)
    outage.begin()
    with pytest.raises(NetzipError, match=r"has not answered for 0 minutes: .*goes on with"):
        studies.work(study, objective)


def test_ctrl_c_waits_for_no_database(study, outage):
    studies.plan(study, 1)

    def interrupted(_trial: object) -> float:
        outage.begin()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        studies.work(study, interrupted, say=outage.say)
    assert outage.said == []
