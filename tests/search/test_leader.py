"""Who leads a study; processes that die are played by their attributes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import optuna
import pytest

from netzip_mlflow.search import leader as leaders
from netzip_mlflow.search import study as studies
from netzip_mlflow.search.leader import Leader, leader, leader_or_claim, leading

GONE = {"host": studies.socket.gethostname(), "pid": 2**22 - 1, "started": 1.0}


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
def test_one_that_is_dead_or_silent_leads_no_more(study, baseline):
    known = {"owner": studies.me(), "seen": time.time(), "run": "r", "baseline": baseline}
    for change in ({"owner": GONE}, {"seen": time.time() - 2 * leaders.SILENT_S}):
        study.set_user_attr(leaders.ATTRIBUTE, known | change)
        assert leader(study) is None


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


def test_of_several_that_begin_at_once_one_leads(tmp_path, monkeypatch):
    """Each thread plays a process with a connection of its own."""
    url, number = f"sqlite:///{tmp_path / 's.db'}", 4
    studies.create(studies.open_storage(url), "s")
    monkeypatch.setattr(leaders, "me", lambda: studies.me() | {"thread": threading.get_ident()})
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
