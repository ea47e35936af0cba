"""SIGTERM as an exception."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from netzip_mlflow.tracking import Killed, killed_on_sigterm


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
