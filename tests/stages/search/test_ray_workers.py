"""How many tasks there are and when they give up, with a Ray that is played; a real one is in
end_to_end/search."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.search.study import Progress
from netzip_mlflow.stages.search import ray_workers
from netzip_mlflow.stages.search.ray_workers import (
    FAILURES,
    TRIALS,
    Assignment,
    Tasks,
    check_addresses,
)


class Failed(Exception):
    """What Ray raises for a task that did."""


@pytest.fixture
def ray(monkeypatch):
    """A Ray whose tasks end when they are in `ended`, well or with an error."""
    ended: dict[int, Exception | None] = {}

    def wait(begun, num_returns, timeout):
        return [t for t in begun if t in ended], [t for t in begun if t not in ended]

    def get(task):
        if ended[task] is not None:
            raise ended[task]

    cancelled: list[tuple[int, bool]] = []
    played = SimpleNamespace(
        wait=wait,
        get=get,
        cancel=lambda task, force=False: cancelled.append((task, force)),
        ended=ended,
        cancelled=cancelled,
    )
    monkeypatch.setitem(sys.modules, "ray", played)
    monkeypatch.setitem(sys.modules, "ray.exceptions", SimpleNamespace(RayError=Failed))
    return played


@pytest.fixture
def tasks(monkeypatch):
    """`tasks(planned, waiting, running)` says how far the study is, and gives its tasks."""
    numbers = iter(range(100))
    found = Tasks(
        SimpleNamespace(say=lambda _line: None),
        None,
        Assignment(None, "s", "", "", "", True, "", float("inf")),
        lambda: next(numbers),
    )

    def at(*state: int) -> Tasks:
        monkeypatch.setattr(ray_workers.studies, "progress", lambda _study: Progress(*state))
        return found

    return at


def test_there_are_as_many_tasks_as_there_are_trials_to_make(ray, tasks):
    assert tasks(4 * TRIALS, 4 * TRIALS, 0).at_work()
    assert len(tasks(4 * TRIALS, 4 * TRIALS, 0).begun) == 4
    assert tasks(4 * TRIALS, 4 * TRIALS - 2, 2).at_work()
    assert tasks(4 * TRIALS, 4 * TRIALS - 2, 2).begun == [0, 1, 2, 3, 4, 5], "two are in work"
    ray.ended.update(dict.fromkeys(range(6)))
    assert not tasks(4 * TRIALS, 0, 0).at_work()


def test_a_trial_that_waits_again_gets_another_task(ray, tasks):
    assert tasks(1, 1, 0).at_work()
    ray.ended[0] = None
    assert tasks(1, 1, 0).at_work()
    assert tasks(1, 1, 0).begun == [1]


def test_when_the_time_is_over_none_is_begun(ray, tasks):
    found = tasks(5, 5, 0)
    found.assignment = Assignment(None, "s", "", "", "", True, "", 0.0)
    assert not found.at_work()


def test_tasks_that_fail_one_after_the_other_end_the_search(ray, tasks):
    ray.ended.update({task: Failed("long\ntrace\nNo such data") for task in range(FAILURES)})
    for _ in range(FAILURES):
        assert tasks(5, 5, 0).at_work()
    with pytest.raises(NetzipError, match="the last one with: No such data"):
        tasks(5, 5, 0).at_work()


def test_those_that_do_not_end_when_they_are_told_to_are_killed(ray, tasks):
    assert tasks(2 * TRIALS, 2 * TRIALS, 0).at_work()
    ray.ended[0] = None
    tasks(0, 0, 0).stop()
    assert ray.cancelled == [(0, False), (1, False), (1, True)]


@pytest.mark.parametrize("address", ["sqlite:////a/s.db", "mlruns", "file:///a/mlruns"])
def test_machines_share_no_file(address):
    check_addresses({"a"}, [address])
    with pytest.raises(InputError, match=r"the cluster has 2 machines, and .* is on one of them"):
        check_addresses({"a", "b"}, ["postgresql+psycopg://h/d", address])


def test_machines_share_servers():
    check_addresses({"a", "b"}, ["postgresql+psycopg://h/d", "http://h:5000"])
