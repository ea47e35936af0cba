"""Searches whose study and runs are in a PostgreSQL that the tests start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def shared(tmp_path: Path, postgresql, searches):
    """A search with both in one database, each in a schema of its own."""
    database = postgresql.database()
    postgresql.run("CREATE SCHEMA studies", database)
    return searches(
        tmp_path,
        postgresql.url(database),
        postgresql.url(database, schema="studies"),
        *("--storage", postgresql.url(database, schema="studies")),
    )


def test_four_workers_of_which_one_is_killed_make_every_trial_once(
    shared, kill_one: Callable, postgresql
):
    process = shared.start("--workers", "4")
    lost = kill_one(shared, process)
    assert process.wait(600) == 0, shared.said()[-3000:]
    shared.check()
    (trial,) = (t for t in shared.trials() if t.number == lost)
    assert trial.state == TrialState.FAIL
    again = [t for t in shared.trials() if t.user_attrs.get("netzip.attempt") == 2]
    assert trial.user_attrs["netzip.slot"] in [t.user_attrs["netzip.slot"] for t in again]
    assert postgresql.PASSWORD not in shared.said()
    shown = [text for run in shared.runs() for text in run.data.tags.values()]
    assert not [text for text in shown if postgresql.PASSWORD in text]


QUICK = ("search.space=[{prune_random: {ratio: [0.1, 0.2]}}, {ptq: {bits: [8, 4]}}]",)


def test_200_quick_trials_of_four_workers_are_200_runs(apart):
    """All but the first few find that their chain was tried before: what is left of a trial is
    what it writes to both databases."""
    quick = [word for change in QUICK for word in ("--set", change)]
    process = apart.start("--workers", "4", "--trials", "200", *quick)
    assert process.wait(600) == 0, apart.said()[-3000:]
    apart.check(200)
    runs = [run for run in apart.runs() if run.data.tags["netzip.kind"] == "trial"]
    assert len(runs) == len({run.data.tags["netzip.trial"] for run in runs}) == 200
    owners = {t.user_attrs["netzip.owner"]["pid"] for t in apart.trials(TrialState.COMPLETE)}
    assert len(owners) == 4, "every worker took part"


class TestBadInput:
    """One clear message in seconds, status 2, no run left behind, and no password anywhere."""

    @pytest.fixture
    def refused(self, tmp_path, searches, postgresql):
        """`refused(tracking, storage)`: what a command that is refused has said."""

        def run(tracking: str, storage: str) -> str:
            search = searches(tmp_path, tracking, storage, "--storage", storage)
            started = time.monotonic()
            assert search.start().wait(60) == 2, search.said()
            assert time.monotonic() - started < 30
            said = search.said().splitlines()
            assert len(said) == 1, said
            assert postgresql.PASSWORD not in said[0]
            return said[0]

        return run

    @pytest.fixture
    def wrong(self, postgresql) -> str:
        """A URL with another password."""
        return postgresql.url("postgres", password="guessed-it")  # noqa: S106 (it is none)

    def test_a_wrong_password_of_the_study_s_database(self, refused, wrong, tmp_path):
        said = refused(f"sqlite:///{tmp_path / 'mlflow.db'}", wrong)
        assert "storage: postgresql+psycopg://tests:***@127.0.0.1" in said
        assert 'password authentication failed for user "tests"' in said
        assert "guessed-it" not in said

    def test_a_wrong_password_of_the_tracking_store(self, refused, wrong, tmp_path):
        said = refused(wrong, f"sqlite:///{tmp_path / 's.db'}")
        assert "the tracking server postgresql+psycopg://tests:***@127.0.0.1" in said
        assert "guessed-it" not in said

    def test_a_database_that_is_not_there(self, refused, postgresql, tmp_path):
        said = refused(f"sqlite:///{tmp_path / 'mlflow.db'}", postgresql.url("nowhere"))
        assert 'database "nowhere" does not exist' in said

    def test_one_database_without_schemas_of_their_own(self, refused, postgresql):
        url = postgresql.url(postgresql.database())
        said = refused(url, url)
        assert "it holds the tables of something else (MLflow's?)" in said
        assert "options=-csearch_path%3DSCHEMA" in said


# Waits for the others, and opens both databases, as the first commands in them do.
FIRST = """
import sys, time
from pathlib import Path
from netzip_mlflow.search import study
from netzip_mlflow.tracking import Tracker
tracking, storage, number = sys.argv[1:]
Path(number).touch()
while len(list(Path().iterdir())) < 3:
    time.sleep(0.01)
tracker = Tracker(tracking, "tests")
tracker.client.create_run(tracker.experiment_id)
study.create(study.open_storage(storage), "s")
"""


def test_three_that_are_the_first_make_the_tables_once(tmp_path, postgresql):
    tracking, storage = (postgresql.url(postgresql.database()) for _ in range(2))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST, tracking, storage, str(number)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-3000:]
