"""The lock of timing: processes of one machine that work, and let each other measure.

Two locked files: whoever works holds `gate` shared and passes through `turn` at every pause point;
whoever times takes `turn`, then `gate` alone, which it gets when all others stand at a pause point.
The locks end with their process, however it ends.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from netzip_mlflow.errors import InputError, NetzipError

__all__ = ["TimingLock", "check"]

PATIENCE_S, POLL_S = 300.0, 0.005  # a process that was stopped holds its lock


def check() -> None:
    """Raise where processes cannot let each other measure.

    Raises:
        InputError: the system has no locks that are shared (Windows).
    """
    if find_spec("fcntl") is None:
        raise InputError(
            "search: its trials wait for each other through fcntl, which this system lacks; "
            "allowed: Linux or macOS (compress, train, measure and compare run here)"
        )


def _shared() -> Path:
    """The folder of this user; by number, which a user without an entry in passwd has too. Its name
    is none that `folders.sweep` looks at."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"timing-locks-of-netzip-{user}"


class TimingLock:
    """A process among those that share `folder` (else one of this user's); outside of `working` it
    holds nothing. Opened before a job begins: within one, temporary files lie in the job's folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or _shared()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._turn, self._gate = (os.open(folder / name, flags) for name in ("turn", "gate"))
        except OSError as error:
            raise NetzipError(f"no lock can be opened: {error}; set TMPDIR") from error

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """While it lasts, nobody times but at this process's pause points."""
        self._enter()
        try:
            yield
        finally:
            _unlock(self._gate)

    def pause(self) -> None:
        """A pause point: waits while another process times."""
        if _lock(self._turn, shared=True, patience=0):
            _unlock(self._turn)
            return
        _unlock(self._gate)
        self._enter()

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """While it lasts, all others stand still; yields whether that is so: not where one did not
        come to a pause point in time. To be entered while `working`."""
        _unlock(self._gate)
        quiet = _lock(self._turn, shared=False, patience=PATIENCE_S)
        quiet = _lock(self._gate, shared=False, patience=PATIENCE_S) and quiet
        try:
            yield quiet
        finally:
            _unlock(self._gate)
            _unlock(self._turn)
            self._enter()

    def close(self) -> None:
        """Give both files back."""
        os.close(self._turn)
        os.close(self._gate)

    def _enter(self) -> None:
        _lock(self._turn, shared=True, patience=PATIENCE_S)
        _lock(self._gate, shared=True, patience=PATIENCE_S)
        _unlock(self._turn)


def _lock(file: int, *, shared: bool, patience: float) -> bool:
    """Whether the lock was got within `patience` seconds."""
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    end = time.monotonic() + patience
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_S)


def _unlock(file: int) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_UN)
