"""Signals that end a command, as exceptions: context managers end the runs, and are not disturbed.

The first signal raises. While runs are being ended the next ones only count, so that Ctrl-C twice,
or a terminal and a supervisor that both send one, leave no run behind; who insists gets away.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Killed", "asked_on_sigint", "deferred", "ended_by_signals"]

ENDING = ("SIGTERM", "SIGHUP", "SIGINT")  # Windows has no SIGHUP
INSISTS = 3  # signals that nothing holds up any more
PATIENCE_S = 10.0  # after the first one; who sends another then is not held up either


class Killed(BaseException):
    """The process was asked to end; like KeyboardInterrupt, no `except Exception` stops it."""


@dataclass(eq=False)
class _Watch:
    """What came while a command lasts; `blocks`: how many are not to be interrupted."""

    clock: Callable[[], float] = time.monotonic
    count: int = 0
    first: float = 0.0
    blocks: int = 0
    waiting: int = 0
    raised: bool = False

    def receive(self, number: int, _frame: object) -> None:
        self.count += 1
        self.first = self.first or self.clock()
        insists = self.count >= INSISTS or self.clock() - self.first > PATIENCE_S
        if insists or not (self.raised or self.blocks):
            self.stop(number)
        self.waiting = self.waiting or number

    def stop(self, number: int) -> None:
        self.raised = True
        raise KeyboardInterrupt if number == signal.SIGINT else Killed(signal.Signals(number).name)


_watches: list[_Watch] = []  # the innermost command's is the last


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """While it lasts, SIGTERM and SIGHUP raise `Killed`, Ctrl-C a KeyboardInterrupt, once.

    A signal that the process was started to ignore (by `nohup`, in the background of a script) is
    still ignored. Only the main thread can be told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch()
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    _watches.append(watch)
    for number in before:
        signal.signal(number, watch.receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _watches.remove(watch)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """A block that signals do not interrupt: the first one is raised at its end, if none was raised
    before. The third one, or one that comes 10 s after the first, is raised at once."""
    if not _watches or threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _watches[-1]
    watch.blocks += 1
    try:
        yield
    finally:
        watch.blocks -= 1
        if watch.waiting and not watch.raised and not watch.blocks:
            watch.stop(watch.waiting)


@contextlib.contextmanager
def asked_on_sigint(ask: Callable[[], None]) -> Iterator[None]:
    """While it lasts, the first SIGINT calls `ask`, the next one does what it did before.

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
