"""Who leads a study; processes that die are played by their attributes."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import optuna
import psutil
import pytest

from netzip_mlflow import processes
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.search import leader as leaders
from netzip_mlflow.search import study as studies
from netzip_mlflow.search.binding import start_over
from netzip_mlflow.search.leader import Leader, following, leader, leader_or_claim, leading

GONE = processes.me() | {"pid": 2**22 - 1}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return studies.create(studies.open_storage(f"sqlite:///{tmp_path / 's.db'}"), "s")


def test_nobody_leads_before_and_after(study):
    assert leader(study) is None
    with leading(study) as ready:
        ready("r", "b")
        assert leader(study) == Leader("r", "b")
    assert leader(study) is None


def test_one_without_a_baseline_yet_is_waited_for(study, monkeypatch):
    monkeypatch.setattr(leaders, "POLL_S", 0.01)
    found = []
    waiting = threading.Thread(target=lambda: found.append(leader(study)))
    with leading(study) as ready:
        waiting.start()
        waiting.join(0.2)
        assert found == []
        ready("r", "b")
        waiting.join(30)
        assert found == [Leader("r", "b")]


@pytest.mark.parametrize("baseline", ["", "b"])
def test_one_that_is_dead_or_silent_leads_no_more(study, baseline, monkeypatch):
    monkeypatch.setattr(leaders, "SIGN_S", 0.1)
    known = {"owner": processes.me(), "seen": time.time(), "run": "r", "baseline": baseline}
    shift = 2 * leaders.SILENT_S
    for change in ({"owner": GONE}, *({"seen": time.time() + by} for by in (-shift, shift))):
        study.set_user_attr(leaders.ATTRIBUTE, known | change)
        assert leader(study) is None


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
def test_a_living_one_leads_whatever_its_clock_says(study, monkeypatch, ahead):
    monkeypatch.setattr(leaders, "POLL_S", 0.01)
    written = leaders._sign

    def sign(study, run, baseline):
        written(study, run, baseline)
        there = study.user_attrs[leaders.ATTRIBUTE]
        study.set_user_attr(leaders.ATTRIBUTE, there | {"seen": there["seen"] + ahead})

    monkeypatch.setattr(leaders, "_sign", sign)
    monkeypatch.setattr(leaders, "SIGN_S", 0.5)
    with leading(study) as ready:
        ready("r", "b")
        assert leader(study) == Leader("r", "b")
        with pytest.raises(InputError, match="another process leads it"):
            start_over(study._storage, "s")
    assert leader(study) is None


def test_one_whose_claim_comes_late_does_not_lead_beside_another(study, monkeypatch):
    """The database was locked; meanwhile another process has claimed the study, and leads it."""
    written, other = leaders._sign, processes.me() | {"another": True}
    over = threading.Event()
    sign = {"owner": other, "seen": time.time(), "run": "", "baseline": ""}

    def lead():
        while not over.wait(leaders.SIGN_S / 2):
            study.set_user_attr(leaders.ATTRIBUTE, sign)

    def late(*given):
        time.sleep(1.5 * leaders.SETTLE_S)
        written(*given)
        thread.start()

    thread = threading.Thread(target=lead)
    monkeypatch.setattr(leaders, "_sign", late)
    monkeypatch.setattr(leaders, "SETTLE_S", 0.05)
    monkeypatch.setattr(leaders, "SIGN_S", 0.5)
    assert not leaders.claim(study)
    over.set()
    thread.join()


def test_a_claim_that_another_took_back_is_none(study, monkeypatch):
    """A leader that was taken for silent ends while this process waits."""
    written = leaders._sign
    monkeypatch.setattr(leaders, "SETTLE_S", 0.05)
    monkeypatch.setattr(leaders, "_sign", lambda *given: (written(*given), leaders.resign(study)))
    assert not leaders.claim(study)


def test_a_clock_that_is_set_deposes_nobody(study, monkeypatch):
    real = psutil.Process.create_time
    with leading(study) as ready:
        ready("r", "b")
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: real(process) + 3)
        assert leader(study) == Leader("r", "b")


def test_it_gives_signs_of_life(study, monkeypatch):
    monkeypatch.setattr(leaders, "SIGN_S", 0.01)
    with leading(study) as ready:
        ready("r", "b")
        first = study.user_attrs[leaders.ATTRIBUTE]["seen"]
        end = time.monotonic() + 30
        while study.user_attrs[leaders.ATTRIBUTE]["seen"] == first:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert leader(study) == Leader("r", "b"), "the runs are still named"


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[], AbstractContextManager[None]]:
    """While it lasts, the database refuses every sign of life, as one that is down would."""

    @contextlib.contextmanager
    def fault() -> Iterator[None]:
        rename = "ALTER TABLE {} RENAME TO {}"
        names = ("study_user_attributes", "gone")
        file = sqlite3.connect(tmp_path / "s.db", timeout=30)
        file.execute(rename.format(*names))
        yield
        file.execute(rename.format(*reversed(names)))
        file.close()

    return fault


def test_it_gives_signs_of_life_again_after_the_database_was_down(study, monkeypatch, broken):
    signs = threading.Semaphore(0)
    sign = leaders._sign

    def tried(*given: object, **named: object) -> None:
        try:
            sign(*given, **named)
        finally:
            signs.release()

    monkeypatch.setattr(leaders, "_sign", tried)
    monkeypatch.setattr(leaders, "SIGN_S", 0.01)
    monkeypatch.setattr(leaders, "RETRY_S", 0.01)
    with leading(study) as ready:
        ready("r", "b")
        with broken():
            for _ in range(3 + signs._value):
                assert signs.acquire(timeout=30), "it gives none any more"
        before = study.user_attrs[leaders.ATTRIBUTE]["seen"]
        end = time.monotonic() + 30
        while study.user_attrs[leaders.ATTRIBUTE]["seen"] <= before:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert leader(study) is None


def test_a_database_that_is_down_when_it_ends_does_not_fail_it(study, monkeypatch, broken):
    with contextlib.ExitStack() as stack, leading(study):
        stack.enter_context(broken())
    monkeypatch.setattr(leaders, "SILENT_S", -1.0)
    monkeypatch.setattr(leaders, "SIGN_S", 0.1)
    assert leader(study) is None, "its silence says it"


def follow(study: optuna.Study, change: dict[str, object] | None) -> threading.Event:
    """Help a leader that leads, and whose sign then changes; whether `stop` is called."""
    sign = {"owner": processes.me(), "seen": time.time(), "run": "r", "baseline": "b"}
    study.set_user_attr(leaders.ATTRIBUTE, sign)
    stopped = threading.Event()
    with following(study, stopped.set):
        changed = None if change is None else sign | change
        study.set_user_attr(leaders.ATTRIBUTE, changed)
        stopped.wait(1.0 if change == {"seen": 2.0} else 30)
    return stopped


def test_who_helps_ends_with_an_error_where_the_leader_died(study, monkeypatch):
    monkeypatch.setattr(leaders, "LOOK_S", 0.01)
    with pytest.raises(NetzipError, match="'s': the process that led it is gone"):
        follow(study, {"owner": GONE})


def test_who_helps_ends_with_an_error_where_the_leader_is_silent(study, monkeypatch):
    """By the helper's own clock: that of another machine may be years behind."""
    monkeypatch.setattr(leaders, "LOOK_S", 0.01)
    assert not follow(study, {"seen": 2.0}).is_set()
    monkeypatch.setattr(leaders, "SILENT_S", 0.2)
    with pytest.raises(NetzipError, match="gone"):
        follow(study, {"seen": 1.0})


def test_who_helps_ends_quietly_where_the_leader_has_ended(study, monkeypatch):
    monkeypatch.setattr(leaders, "LOOK_S", 0.01)
    assert follow(study, None).is_set()


def test_who_helps_goes_on_while_the_database_is_down(study, monkeypatch, broken):
    monkeypatch.setattr(leaders, "LOOK_S", 0.01)
    stopped = threading.Event()
    with leading(study) as ready:
        ready("r", "b")
        with following(study, stopped.set), broken():
            assert not stopped.wait(0.2)


def test_of_several_that_begin_at_once_one_leads(tmp_path, monkeypatch):
    """Each thread plays a process with a connection of its own."""
    url, number = f"sqlite:///{tmp_path / 's.db'}", 4
    studies.create(studies.open_storage(url), "s")
    monkeypatch.setattr(leaders, "me", lambda: processes.me() | {"thread": threading.get_ident()})
    together, found = threading.Barrier(number), []

    def begin() -> None:
        study = studies.create(studies.open_storage(url), "s")
        together.wait(30)
        led = leader_or_claim(study)
        found.append(led)
        if led is None:
            study.set_user_attr(
                leaders.ATTRIBUTE,
                study.user_attrs[leaders.ATTRIBUTE] | {"run": "r", "baseline": "b"},
            )

    threads = [threading.Thread(target=begin) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found.count(None) == 1
    assert found.count(Leader("r", "b")) == number - 1
