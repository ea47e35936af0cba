"""Faults on the way to a store: a proxy that injects them, and a lock on a sqlite file.

`tests/conftest.py` offers both as fixtures: `proxy(upstream)` and `locker`.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import re
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What happens to requests that match, `times` times.

    Args:
        kind: "status" (`value` is answered), "delay" (by `value` seconds), "reset" (the connection
            breaks; with `value` 1 only when the request has been passed on: its answer is lost).
        when: searched in `METHOD /path`.
    """

    kind: str
    value: float
    when: str = ""
    times: float = float("inf")
    body: str = ""

    def matches(self, request: str) -> bool:
        return self.times > 0 and re.search(self.when, request) is not None


@dataclass
class Proxy:
    """A proxy in front of a server, on a port of its own; `seen` are the requests that it got."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, status: int, when: str = "", **more: Any) -> None:
        """From now on, requests that match get this status."""
        self.faults.append(Fault("status", status, when, **more))

    def delay(self, seconds: float, when: str = "", **more: Any) -> None:
        """They are passed on, later."""
        self.faults.append(Fault("delay", seconds, when, **more))

    def reset(self, when: str = "", *, answered: bool = False, **more: Any) -> None:
        """Their connection breaks; `answered`: after the server has done what they ask."""
        self.faults.append(Fault("reset", float(answered), when, **more))

    def heal(self) -> None:
        """No fault any more."""
        self.faults.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: Proxy
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {self.path}"
        self.owner.seen.append(request)
        fault = next((f for f in self.owner.faults if f.matches(request)), None)
        if fault is not None:
            fault.times -= 1
        if fault is not None and fault.kind == "delay":
            time.sleep(fault.value)
        elif fault is not None and fault.kind == "status":
            self._answer(int(fault.value), {}, fault.body.encode())
            return
        elif fault is not None and not fault.value:
            self._break()
            return
        try:
            answer = self._forward(body)
        except OSError:
            self._break()  # the server itself is away
            return
        if fault is not None and fault.kind == "reset":
            self._break()
            return
        self._answer(*answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815 (http.server's names)

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = urlsplit(self.owner.upstream)
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        with contextlib.closing(connection):
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            path = re.sub(r"^http://[^/]*", "", self.path)  # whole addresses, as a proxy gets them
            connection.request(self.command, upstream.path + path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _break(self) -> None:
        """The client sees `connection reset by peer`."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing is printed."""


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """A sqlite file that another connection writes to, without ever being done."""
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.rollback()
        connection.close()
