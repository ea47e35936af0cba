"""SIGTERM as an exception, SIGINT as a request."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from netzip_mlflow.tracking import Killed, asked_on_sigint, killed_on_sigterm


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_raises_and_no_except_exception_stops_it():
    assert not issubclass(Killed, Exception)
    with pytest.raises(Killed), killed_on_sigterm():
        terminate()


def test_a_second_sigterm_does_not_interrupt_the_clean_up():
    tidied = []

    def work() -> None:
        with killed_on_sigterm():
            try:
                terminate()
            finally:
                terminate()
                tidied.append(True)

    with pytest.raises(Killed):
        work()
    assert tidied == [True]


def test_the_handler_of_before_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with killed_on_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_is_changed():
    seen = []

    def work() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with killed_on_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


@pytest.fixture
def sigint() -> Iterator[None]:
    """SIGINT as Python handles it, though a job in the background is started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_the_first_sigint_asks_and_the_second_interrupts():
    asked = []
    before = signal.getsignal(signal.SIGINT)
    with asked_on_sigint(lambda: asked.append(True)):
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert asked == [True]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_request_is_not_lost_where_an_exception_would_be():
    """In a callback of a weak reference an exception is printed and forgotten."""
    import weakref

    class Thing:
        pass

    asked, thing = [], Thing()
    seen = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    with asked_on_sigint(lambda: asked.append(True)):
        del thing
    assert seen() is None
    assert asked == [True]
