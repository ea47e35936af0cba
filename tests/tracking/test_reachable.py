"""Whether a store can be used: against real sockets, some of them ill."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from netzip_mlflow.errors import TrackingUnavailable
from netzip_mlflow.tracking.reachable import check_reachable, healthy, tracking_uri


@pytest.fixture
def answering() -> Iterator[Callable[[int], str]]:
    """Starts a server whose /health answers with a status; gives its URI."""
    servers = []

    def start(status: int) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/health" else 418)
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Nothing is printed."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def deaf() -> Iterator[str]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("status", [200, 404])
def test_a_server_that_answers_is_healthy(answering, status):
    uri = answering(status)
    assert healthy(uri) is None
    assert healthy(uri + "/") is None
    check_reachable(uri)


def test_a_server_in_trouble_is_not(answering):
    uri = answering(503)
    assert healthy(uri) == "it answers with status 503"
    with pytest.raises(TrackingUnavailable, match="status 503"):
        check_reachable(uri)


def test_nobody_there(closed):
    assert "refused" in (healthy(closed) or "")
    with pytest.raises(TrackingUnavailable) as caught:
        check_reachable(closed)
    message = str(caught.value)
    assert closed in message
    assert "refused" in message
    assert "--tracking-uri" in message
    assert "MLFLOW_TRACKING_URI" in message
    assert caught.value.exit_status == 2


def test_one_that_never_answers_is_given_up(deaf):
    assert "timed out" in (healthy(deaf, patience_s=0.2) or "")


def test_something_else_that_listens_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with listener.accept()[0] as connection:
                connection.recv(1024)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TrackingUnavailable, match=uri):
            check_reachable(uri)
        thread.join()


@pytest.mark.parametrize(
    "uri", ["http://[no-address", "http://127.0.0.1:port", "http://127.0.0.1:99999", "http://"]
)
def test_what_is_no_address(uri):
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        check_reachable(uri)


def test_a_database_needs_a_folder_that_is_there(tmp_path):
    check_reachable(f"sqlite:///{tmp_path}/new.db")
    check_reachable("sqlite:///relative.db")
    check_reachable("sqlite://")
    with pytest.raises(TrackingUnavailable, match=f"{tmp_path}/missing is not a writable folder"):
        check_reachable(f"sqlite:///{tmp_path}/missing/new.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingUnavailable, match="is not a writable folder"):
        check_reachable(f"sqlite:///{tmp_path}/file/new.db")


def test_which_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from.environment")
    assert tracking_uri() == "http://from.environment"
    assert tracking_uri("http://given") == "http://given"


def test_it_is_found_out_before_anything_heavy_is_imported(closed):
    script = """
import sys
from netzip_mlflow.errors import TrackingUnavailable
from netzip_mlflow.tracking import Tracker
try:
    Tracker(sys.argv[1])
except TrackingUnavailable:
    print([m for m in ("mlflow", "torch", "pandas", "numpy", "onnxruntime") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, closed], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
