"""Whom our processes ask on the network, and what they leave in the user's home: nobody but the
tracking server and the databases named, and nothing that names the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

WATCH = Path(__file__).with_name("watch.c")
KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "NETZIP_CACHE_MAX_BYTES")
FONTS = ".cache/matplotlib/"  # its list of the machine's fonts stays on the machine
CHANGES = (
    *("--set", "candidates={ptq: [ptq]}"),
    *("--set", "search={trials: 2, sampler: random, keep: 1, space: [{ptq: {bits: [8, 4]}}]}"),
)


@pytest.fixture(scope="session")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload, which sees native look-ups too."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("native look-ups are seen on Linux alone, with a C compiler (cc)")
    library = tmp_path_factory.mktemp("watch") / "watch.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, WATCH, "-ldl"], check=True)
    return library


class Watched:
    """Commands with an empty home and none of the switches that a tester's machine has set."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._folder, self._home, self._calls = folder, folder / "home", folder / "calls.txt"
        self._home.mkdir()
        self._environment = {k: os.environ[k] for k in KEPT if k in os.environ} | {
            "HOME": str(self._home),
            "XDG_CACHE_HOME": str(self._home / ".cache"),
            "TMPDIR": str(folder / "scratch"),
            "OMP_NUM_THREADS": "1",
            "LD_PRELOAD": str(library),
            "WATCHED_CALLS": str(self._calls),
        }

    def run(self, *arguments: str, uri: str = "") -> str:
        """What a Python process prints; it must succeed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self._folder,
            env=self._environment | ({"MLFLOW_TRACKING_URI": uri} if uri else {}),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def asked(self) -> set[tuple[str, str]]:
        """Host and port of every call."""
        if not self._calls.exists():
            return set()
        lines = (line.split() for line in self._calls.read_text().splitlines())
        return {(host, port) for _, host, port in lines}

    def left(self) -> list[str]:
        """Files in the home, matplotlib's list of fonts left out."""
        files = (p.relative_to(self._home) for p in self._home.rglob("*") if p.is_file())
        return sorted(str(file) for file in files if not str(file).startswith(FONTS))


@pytest.fixture
def watched(folder, watch) -> Watched:
    return Watched(folder.path, watch)


NATIVE = """
import ctypes
ctypes.CDLL(None).getaddrinfo(b"native.invalid", b"443", None, ctypes.byref(ctypes.c_void_p()))
"""
CHILD = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import socket; socket.getaddrinfo('127.0.0.1', 7)"])
"""


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("import socket; socket.socket().connect_ex(('127.0.0.1', 9))", ("127.0.0.1", "9")),
        (NATIVE, ("native.invalid", "443")),
        (CHILD, ("127.0.0.1", "7")),
    ],
    ids=["python", "native", "subprocess"],
)
def test_the_watch_sees(watched: Watched, code: str, seen: tuple[str, str]) -> None:
    watched.run("-c", code)
    assert seen in watched.asked()


def test_compress_measure_and_export_ask_the_tracking_server_alone(watched, folder, server):
    netzip = ("-m", "netzip_mlflow")
    told = watched.run(*netzip, "compress", "quick.yaml", *CHANGES, "--json", uri=server.uri)
    run = json.loads(told)["candidates"][1]["run_id"]
    watched.run(*netzip, "measure", f"runs:/{run}", "--json", uri=server.uri)
    watched.run(*netzip, "export", f"runs:/{run}", "shipped", uri=server.uri)
    np.save(folder.path / "images.npy", np.zeros((1, 1, 32, 32), np.float32))
    assert watched.run("shipped/predict.py", "images.npy").strip()
    port = server.uri.rpartition(":")[2]
    assert watched.asked() == {("127.0.0.1", port)}
    assert watched.left() == []


def test_a_search_of_several_processes_asks_nobody(watched, folder):
    command = ("-m", "netzip_mlflow", "search", "quick.yaml", *CHANGES, "--workers", "2")
    watched.run(*command, uri=folder.uri)
    assert watched.asked() == set()
    assert watched.left() == []
