"""Real processes: commands in a folder of their own, tracking servers that come and go."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TOP = ("netzip_mlflow/", "recipes/", "MLproject", "conda.yaml", "pyproject.toml", "README.md")


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Poll until something is so; fail, naming it, when it is not so in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain until {what}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """`until(condition, what, seconds)`."""
    return wait_until


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables in a sqlite file: making them takes seconds, copying them does not."""
    import mlflow

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """What a shell has started in the background ignores Ctrl-C, and so does all that it starts:
    not what the tests start."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Folder:
    """A working folder with a sqlite store, and commands that are started in it."""

    def __init__(self, path: Path, migrated: Path) -> None:
        self.path = path
        self.uri = f"sqlite:///{path / 'mlflow.db'}"
        shutil.copy(migrated, path / "mlflow.db")
        given = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        self.environment = given | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "TMPDIR": str(path / "scratch"),
        }
        (path / "scratch").mkdir()

    @property
    def client(self) -> MlflowClient:
        """Reads the store behind any server's back."""
        import mlflow

        return mlflow.MlflowClient(self.uri)

    def runs(self) -> list[Run]:
        """All runs of all experiments."""
        homes = [e.experiment_id for e in self.client.search_experiments()]
        return list(self.client.search_runs(homes))

    def states(self) -> dict[str, str]:
        """Status by name, for a store with one run of a name."""
        return {run.info.run_name or "": run.info.status for run in self.runs()}

    def scratch(self) -> list[str]:
        """What lies in the temporary folder and is ours, or was made by Python's tempfile."""
        names = [p.name for p in (self.path / "scratch").iterdir()]
        return [name for name in names if name.startswith(("netzip-", "tmp"))]

    def start(self, *command: str, **more: str) -> subprocess.Popen[str]:
        """A process at the head of a group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def netzip(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Our command line, started."""
        return self.start(sys.executable, "-m", "netzip_mlflow", *arguments, **more)


@pytest.fixture
def folder(tmp_path: Path, migrated: Path) -> Folder:
    """A folder with a quick recipe: a network with weights, nothing to train."""
    place = Folder(tmp_path, migrated)
    shutil.copy(HERE / "plugs.py", tmp_path)
    save_weights(tmp_path / "lenet5.safetensors")
    recipe = {
        "name": "quick",
        "data": {"name": "digits", "validation": 0.2, "test": 0.2, "calibration": 32},
        "model": {"name": "lenet5", "weights": "lenet5.safetensors"},
        "measure": {
            "latency": {"target": 0.5, "max_seconds": 0.5, "min_rounds": 5},
            "throughput": [],
        },
        "score": {"max_drop_points": 100},
    }
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(recipe))
    return place


def save_weights(file: Path) -> None:
    """Weights that answer something: nobody looks at the accuracy here."""
    import torch
    from safetensors.torch import save_file

    from netzip_mlflow import models

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.build("lenet5", (1, 32, 32), {"num_classes": 10})
    save_file(network.state_dict(), file)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Callable[[], Folder]:
    """Copies of the project as its users have it: what git would give them."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("the project is no git checkout here")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [name for name in listed.stdout.split("\0") if name.startswith(TOP)]

    def copy() -> Folder:
        place = tmp_path_factory.mktemp("checkout")
        for name in files:
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place / name)
        return Folder(place, migrated)

    return copy


class Server:
    """`mlflow server` on a port of its own, over the folder's store."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def healthy(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1):  # noqa: S310 (http)
                return True
        except (OSError, urllib.error.URLError):
            return False

    def start(self) -> None:
        """Start it, again if need be, and wait until it answers."""
        self.stop()
        path = self._folder.path
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--backend-store-uri", self._folder.uri),
            *("--artifacts-destination", str(path / "artifacts")),
        ]
        environment = self._folder.environment.copy()
        del environment["MLFLOW_TRACKING_URI"]
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # ten processes fewer
        with (path / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=path,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (path / "server.pid").write_text(str(self._process.pid))
        wait_until(self.healthy, "the tracking server answers")

    def stop(self) -> None:
        """Kill it and all that it has started."""
        if self._process is not None:
            kill_group(self._process)


def kill_group(process: subprocess.Popen) -> None:
    """`kill -9` of a process group; one that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def server(folder: Folder) -> Iterator[Server]:
    """A server over the folder's store, running."""
    found = Server(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def kill() -> Callable[[subprocess.Popen], None]:
    """`kill(process)`: the whole group, at once."""
    return kill_group
