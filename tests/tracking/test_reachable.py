"""Whether a store can be used: against real sockets and files, some of them ill."""

from __future__ import annotations

import base64
import datetime
import http.server
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netzip_mlflow.errors import TrackingUnavailable
from netzip_mlflow.tracking import reachable
from netzip_mlflow.tracking.reachable import check_reachable, healthy, tracking_uri

QUESTION = "/api/2.0/mlflow/experiments/search"


class Stub(http.server.BaseHTTPRequestHandler):
    """Answers as a tracking server: its health to anybody, MLflow's question to whom it lets in."""

    health, wanted, prefix = 200, "", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        allowed = self.wanted in {"", self.headers.get("Authorization")}
        known = {f"{self.prefix}/health": self.health}
        known[f"{self.prefix}{QUESTION}"] = 200 if allowed else 401
        self.send_response(known.get(path, 404))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing is printed."""


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """`answering(status, **attributes)` starts a stub; `tls` is a certificate's context."""
    servers = []

    def start(status: int = 200, *, tls: ssl.SSLContext | None = None, **attributes: str) -> str:
        handler = type("Handler", (Stub,), {"health": status, **attributes})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of our own for 127.0.0.1, its key in the same file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file = tmp_path_factory.mktemp("tls") / "own.pem"
    secret = key.private_bytes(encoding, form, serialization.NoEncryption())
    file.write_bytes(certificate.public_bytes(encoding) + secret)
    return file


@pytest.fixture
def secured(answering, authority) -> Callable[..., str]:
    """`secured(**attributes)`: a stub that speaks TLS; `clients`: only to whom it knows."""

    def start(*, clients: bool = False, **attributes: str) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority)
        return answering(tls=context, **attributes)

    return start


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path) -> None:
    """Nobody's credentials, certificates or proxies."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_TRACKING_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


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


def test_one_that_never_answers_is_given_up(deaf, monkeypatch):
    monkeypatch.setattr(reachable, "PATIENCE_S", 0.2)
    assert "timed out" in (healthy(deaf) or "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite:///runs/mlflow.db?timeout=5", "sqlite:///{here}/runs/mlflow.db?timeout=5"),
        ("sqlite+pysqlite:///x.db", "sqlite+pysqlite:///{here}/x.db"),
        ("./mlruns", "{here}/./mlruns"),
        ("file:mlruns", "file:{here}/mlruns"),
        *((uri, uri) for uri in ("sqlite:////a/mlflow.db", "sqlite:///:memory:", "sqlite://")),
        *((uri, uri) for uri in ("file:///a/mlruns", "/a/mlruns", "https://u:p@h/x", "databricks")),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
    ],
)
def test_a_local_store_as_it_is_from_every_folder(given, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert reachable.absolute(given) == expected.format(here=tmp_path)


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


class TestWhatMlflowAccepts:
    """DESIGN.md: its own client is asked, so its settings are ours."""

    BASIC = "Basic " + base64.b64encode(b"me:s3cret").decode()

    def test_own_authority(self, secured, authority, monkeypatch):
        uri = secured()
        with pytest.raises(TrackingUnavailable, match="MLFLOW_TRACKING_SERVER_CERT_PATH") as raised:
            check_reachable(uri)
        assert "CERTIFICATE_VERIFY_FAILED" in str(raised.value)
        assert "MLFLOW_TRACKING_INSECURE_TLS" in str(raised.value)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority))
        check_reachable(uri)

    def test_the_bundle_that_requests_knows(self, secured, authority, monkeypatch):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        check_reachable(secured())

    @pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
    def test_insecure_tls(self, secured, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        check_reachable(secured())

    def test_a_client_s_certificate(self, secured, authority, monkeypatch):
        uri = secured(clients=True)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority))
        with pytest.raises(TrackingUnavailable, match="MLFLOW_TRACKING_CLIENT_CERT_PATH"):
            check_reachable(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(authority))
        check_reachable(uri)

    def test_user_and_password_in_the_address(self, answering):
        uri = answering(wanted=self.BASIC)
        check_reachable(uri.replace("://", "://me:s3cret@"))
        with pytest.raises(TrackingUnavailable) as raised:
            check_reachable(uri.replace("://", "://me:wr0ng@"))
        assert "wr0ng" not in str(raised.value)

    def test_user_and_password_in_the_environment(self, answering, monkeypatch):
        uri = answering(wanted=self.BASIC)
        with pytest.raises(TrackingUnavailable, match="401") as raised:
            check_reachable(uri)
        for name in ("USERNAME", "PASSWORD", "TOKEN"):
            assert f"MLFLOW_TRACKING_{name}" in str(raised.value)
        assert raised.value.exit_status == 2
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
        check_reachable(uri)

    def test_a_token(self, answering, monkeypatch):
        uri = answering(wanted="Bearer t0ken")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
        check_reachable(uri)

    def test_below_a_path(self, answering):
        uri = answering(prefix="/team/mlflow")
        check_reachable(f"{uri}/team/mlflow")
        check_reachable(f"{uri}/team/mlflow/")
        with pytest.raises(TrackingUnavailable, match="status 404"):
            check_reachable(uri)

    def test_a_proxy(self, answering, proxy, monkeypatch):
        """The server's name is known to the proxy alone."""
        between = proxy(answering())
        monkeypatch.setenv("http_proxy", between.uri)
        check_reachable("http://mlflow.invalid")
        assert [line.partition("?")[0] for line in between.seen] == [
            "GET http://mlflow.invalid/health",
            f"GET http://mlflow.invalid{QUESTION}",
        ]

    @pytest.mark.parametrize("status", [502, 503, 504])
    def test_a_proxy_whose_server_is_away(self, answering, proxy, status):
        between = proxy(answering())
        between.answer(status)
        with pytest.raises(TrackingUnavailable, match=f"does not answer: .*{status}"):
            check_reachable(between.uri)

    def test_one_that_is_healthy_and_answers_no_question(self, answering, proxy):
        between = proxy(answering())
        between.answer(500, when=QUESTION)
        with pytest.raises(TrackingUnavailable, match="status 500"):
            check_reachable(between.uri)


class TestSqlite:
    """A store that cannot be opened; MLflow itself tries for 109 seconds."""

    @pytest.fixture
    def file(self, tmp_path, migrated) -> Path:
        shutil.copy(migrated, tmp_path / "mlflow.db")
        return tmp_path / "mlflow.db"

    def test_one_that_is_there(self, file):
        before = file.read_bytes()
        check_reachable(f"sqlite:///{file}")
        assert file.read_bytes() == before, "asking changes nothing"
        assert [p.name for p in file.parent.iterdir()] == ["mlflow.db"]

    def test_a_folder(self, tmp_path):
        with pytest.raises(TrackingUnavailable, match=f"{tmp_path} is a folder"):
            check_reachable(f"sqlite:///{tmp_path}")

    def test_no_database(self, tmp_path):
        (tmp_path / "notes.db").write_text("this is no database " * 100)
        with pytest.raises(TrackingUnavailable, match="file is not a database"):
            check_reachable(f"sqlite:///{tmp_path}/notes.db")

    def test_a_folder_where_nothing_can_be_made(self):
        if not Path("/proc/self").exists():
            pytest.skip("no folder here that nobody can write to")
        with pytest.raises(TrackingUnavailable, match="/proc is not a writable folder"):
            check_reachable("sqlite:////proc/mlflow.db")

    def test_one_that_can_only_be_read(self, file):
        with pytest.raises(TrackingUnavailable, match="readonly"):
            check_reachable(f"sqlite:///file:{file}?mode=ro&uri=true")

    def test_one_that_is_locked(self, file, locked, monkeypatch):
        monkeypatch.setattr(reachable, "PATIENCE_S", 0.1)
        with locked(file), pytest.raises(TrackingUnavailable, match="is locked"):
            check_reachable(f"sqlite:///{file}")
        check_reachable(f"sqlite:///{file}")

    def test_a_question_mark_in_a_folder_s_name(self, tmp_path, migrated, monkeypatch):
        place = tmp_path / "what?now"
        place.mkdir()
        shutil.copy(migrated, place / "mlflow.db")
        with pytest.raises(TrackingUnavailable, match="%3F"):
            check_reachable(f"sqlite:///{place}/mlflow.db")
        assert [p.name for p in tmp_path.iterdir()] == ["what?now"], "nothing beside it is made"
        check_reachable(f"sqlite:///{tmp_path}/what%3Fnow/mlflow.db")
        monkeypatch.chdir(place)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        check_reachable(tracking_uri())

    def test_a_percent_sign_in_the_current_folder_s_name(self, tmp_path, monkeypatch):
        place = tmp_path / "half%41"
        place.mkdir()
        monkeypatch.chdir(place)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(TrackingUnavailable, match="halfA"):
            check_reachable(tracking_uri())
        (tmp_path / "100% sure").mkdir()
        monkeypatch.chdir(tmp_path / "100% sure")
        check_reachable(tracking_uri())


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
