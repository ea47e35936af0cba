"""SIGTERM as an exception, so that context managers end runs as KILLED; Ctrl-C as a request."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["Killed", "asked_on_sigint", "killed_on_sigterm"]


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


@contextlib.contextmanager
def asked_on_sigint(ask: Callable[[], None]) -> Iterator[None]:
    """While it lasts, the first SIGINT calls `ask`, the next one is a KeyboardInterrupt as usual.

    An exception is lost where a library's callback happens to be interrupted; a request is not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        ask()

    before = signal.signal(signal.SIGINT, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
