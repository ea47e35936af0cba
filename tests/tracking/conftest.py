"""A migrated sqlite store for each test (copied from one that is made once), and open trackers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest

from netzip_mlflow.tracking import Tracker
from netzip_mlflow.tracking.reachable import healthy

SHAPE, CLASSES = (1, 2, 2), ("cat", "dog", "eel")
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a candidate ships: a linear classifier of four pixels."""
    place = tmp_path / "small"
    place.mkdir()
    weights = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Flatten", ["images"], ["pixels"]),
            onnx.helper.make_node("MatMul", ["pixels", "weights"], ["scores"]),
        ],
        "small",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", *SHAPE])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.save(model, place / "model.onnx")
    images = np.ones((16, *SHAPE), np.float32)
    np.savez(place / "golden.npz", images=images, scores=images.reshape(16, 4) @ weights)
    manifest = {
        "task": "classification",
        "chain": ["prune_l1(0.3)", "ptq(int8)"],
        "input": {"name": "images", "shape": list(SHAPE)},
        "outputs": [{"name": "scores", "shape": [len(CLASSES)]}],
        "classes": list(CLASSES),
        "model_digest": hashlib.sha256((place / "model.onnx").read_bytes()).hexdigest()[:16],
        "versions": {name: version(name) for name in ("onnx", "onnxruntime")},
    }
    (place / "netzip.json").write_text(json.dumps(manifest))
    return place


class Server:
    """A stand-in for a tracking server that goes away and comes back, with its own time.

    `answers` is what `health` says; `away_until` brings it back at that second of the fake clock.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.reason: str | None = None
        self.away_until: float | None = None
        self.asked = 0

    def away(self, reason: str = "failed with error code 503", until: float | None = None) -> None:
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
    """A tracker whose store can be away for writes; waiting costs no real time."""
    from netzip_mlflow.tracking.outbox import Outbox

    tracker.sender.client = Client(tracker.sender.client, server)  # type: ignore[assignment]
    tracker.outbox = Outbox(
        tracker.uri,
        tracker.sender,
        clock=server.clock,
        pause=server.pause,
        health=server.health,
    )
    return tracker


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[str]:
    """The URI of a real MLflow server with a store of its own."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(migrated, folder / "mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING")}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # ten processes fewer
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    uri = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 120
    while healthy(uri) is not None:
        assert process.poll() is None, (folder / "server.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.1)
    yield uri
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
