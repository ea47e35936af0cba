"""SIGTERM as an exception, so that context managers end runs as KILLED."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["Killed", "killed_on_sigterm"]


class Killed(BaseException):
    """The process was asked to end; like KeyboardInterrupt, no `except Exception` stops it."""


@contextlib.contextmanager
def killed_on_sigterm() -> Iterator[None]:
    """While it lasts, SIGTERM raises `Killed` in the main thread; a second one is ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Killed("SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
