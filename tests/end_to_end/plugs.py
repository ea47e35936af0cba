"""Techniques of a user's own that stand in for accidents; copied into the working folder."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def wait_for(name: str) -> None:
    """Until a file is there; the test that makes it has a deadline of its own."""
    while not Path(name).exists():
        time.sleep(0.05)


def hold(twin, context):
    """Say so, and never end."""
    Path("holding").touch()
    wait_for("never")


def pull(twin, context):
    """Kill the tracking server in the middle of a candidate, once."""
    if Path("pulled").exists():
        return twin
    Path("pulled").touch()
    os.killpg(int(Path("server.pid").read_text()), signal.SIGKILL)
    return twin


def wait(twin, context):
    """Go on when the server is back: what was made before has met its absence."""
    Path("waiting").touch()
    wait_for("back")
    return twin
