"""A migrated sqlite store for each test (copied from one that is made once), and open trackers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from netzip_mlflow.tracking import Tracker

VARIABLES = (
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables in a sqlite file: making them takes seconds, copying them does not."""
    import mlflow

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a store of this test's own; the working folder is its folder."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    return uri


@pytest.fixture
def tracker(store: str) -> Tracker:
    """An open tracker in the experiment `tests`."""
    return Tracker(store, "tests")


class Server:
    """A stand-in for a tracking server that goes away and comes back, with its own time.

    `answers` is what `health` says; `away_until` brings it back at that second of the fake clock.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.reason: str | None = None
        self.away_until: float | None = None
        self.asked = 0

    def away(self, reason: str = "connection refused", until: float | None = None) -> None:
        self.reason, self.away_until = reason, until

    def back(self) -> None:
        self.reason, self.away_until = None, None

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if self.away_until is not None and self.now >= self.away_until:
            self.back()

    def health(self, uri: str) -> str | None:
        self.asked += 1
        return self.reason


@pytest.fixture
def server() -> Server:
    return Server()


class Client:
    """MLflow's client behind a cable that a test can pull: every call fails while it is out."""

    def __init__(self, client: object, server: Server) -> None:
        self._client, self._server = client, server

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            from mlflow.exceptions import MlflowException

            if self._server.reason is not None:
                raise MlflowException(f"API request failed: {self._server.reason}")
            return getattr(self._client, name)(*arguments, **named)

        return call


@pytest.fixture
def remote(tracker: Tracker, server: Server) -> Tracker:
    """A tracker whose store can be away; waiting costs no real time."""
    from netzip_mlflow.tracking.outbox import Outbox

    tracker.client = Client(tracker.client, server)  # type: ignore[assignment]
    tracker.outbox = Outbox(
        tracker.uri, clock=server.clock, pause=server.pause, health=server.health
    )
    return tracker
