"""Signals that end a command, as exceptions: context managers end the runs, and are not disturbed.

The first signal raises. While runs are being ended the next ones only count, so that Ctrl-C twice,
or a terminal and a supervisor that both send one, leave no run behind; who insists gets away.

An exception can be lost where it happens to be raised: in the callback of a weak reference, in a
library that catches all, or in one that stumbles over what it had not finished. It is raised again
until it arrives where runs are ended.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Killed", "asked_on_sigint", "deferred", "ended_by_signals", "ending", "stopped"]

ENDING = ("SIGTERM", "SIGHUP", "SIGINT")  # Windows has no SIGHUP
INSISTS = 3  # signals that nothing holds up any more
PATIENCE_S = 10.0  # after the first one; who sends another then is not held up either
AGAIN_S = 2.0  # after which an exception that has not arrived was lost


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
    raised: int = 0
    arrived: bool = False
    again: bool = False  # the next signal is our own
    over: threading.Event = field(default_factory=threading.Event)

    def receive(self, number: int, _frame: object) -> None:
        if self.again:
            self.again = False
            if not (self.arrived or self.blocks):
                self.stop(number)
            return
        self.count += 1
        self.first = self.first or self.clock()
        insists = self.count >= INSISTS or self.clock() - self.first > PATIENCE_S
        if insists or not (self.raised or self.blocks):
            self.stop(number)
        self.waiting = self.waiting or number

    def stop(self, number: int) -> None:
        if not self.raised:
            threading.Thread(target=self.insist, daemon=True).start()
        self.raised = self.raised or number
        raise _exception(number)

    def insist(self) -> None:
        """Have the signal come again as long as its exception is lost."""
        while not self.over.wait(AGAIN_S) and not self.arrived:
            self.again = True
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, self.raised)
            else:
                _thread.interrupt_main(signal.Signals(self.raised))


_watches: list[_Watch] = []  # the innermost command's is the last


def _exception(number: int) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return Killed(signal.Signals(number).name)


def stopped() -> BaseException | None:
    """What a signal raised in the command at work, whatever became of it."""
    return _exception(_watches[-1].raised) if _watches and _watches[-1].raised else None


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
        with _lost_quietly():
            yield
    finally:
        watch.arrived = True
        watch.over.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        _watches.remove(watch)


@contextlib.contextmanager
def _lost_quietly() -> Iterator[None]:
    """Python prints the trace of an exception that it loses; of ours, which comes again, not."""
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, Killed | KeyboardInterrupt):
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


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
def ending() -> Iterator[None]:
    """As `deferred`, where what a signal raised has arrived: it need not come again."""
    if _watches and threading.current_thread() is threading.main_thread():
        _watches[-1].arrived = bool(_watches[-1].raised)
    with deferred():
        yield


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
