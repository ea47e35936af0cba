"""Signals as exceptions that come once, SIGINT as a request."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from netzip_mlflow.tracking import Killed, asked_on_sigint, ended_by_signals, signals
from netzip_mlflow.tracking.signals import deferred


def send(*names: str) -> None:
    for name in names:
        os.kill(os.getpid(), getattr(signal, name))


@pytest.fixture(autouse=True)
def handled() -> Iterator[None]:
    """Signals as Python handles them, though a job in the background is started to ignore some."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in ("SIGINT", "SIGHUP")}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_raises_and_no_except_exception_stops_it(name):
    assert not issubclass(Killed, Exception)
    with pytest.raises(Killed, match=name), ended_by_signals():
        send(name)


def test_what_the_process_was_started_to_ignore_is_ignored():
    """`nohup netzip ...` outlives its terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ended_by_signals():
        send("SIGHUP")
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("first", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("second", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_second_signal_does_not_interrupt_the_clean_up(first, second):
    tidied = []

    def work() -> None:
        with ended_by_signals():
            try:
                send(first)
            finally:
                send(second)
                with deferred():
                    tidied.append(True)

    with pytest.raises(KeyboardInterrupt if first == "SIGINT" else Killed) as caught:
        work()
    assert str(caught.value) in {"", first}
    assert tidied == [True]


def test_a_deferred_signal_is_raised_when_the_block_has_ended():
    done = []

    def work() -> None:
        with ended_by_signals(), deferred():
            with deferred():
                send("SIGHUP", "SIGTERM")
                done.append("inner")
            done.append("outer")
        done.append("never")

    with pytest.raises(Killed, match="SIGHUP"):
        work()
    assert done == ["inner", "outer"]


def test_who_insists_is_obeyed():
    reached = []

    def work() -> None:
        with ended_by_signals(), deferred():
            send("SIGINT", "SIGINT")
            reached.append(2)
            send("SIGINT")
            reached.append(3)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == [2]


def test_nor_is_one_held_up_who_comes_back_later():
    now = [100.0]
    watch = signals._Watch(clock=lambda: now[0], blocks=1)
    watch.over.set()  # it need not come again
    watch.receive(signal.SIGTERM, None)
    now[0] += signals.PATIENCE_S + 1
    with pytest.raises(Killed):
        watch.receive(signal.SIGTERM, None)


def test_what_is_lost_in_a_callback_comes_again(monkeypatch, capsys):
    """Python would print its trace and go on."""
    import weakref

    monkeypatch.setattr(signals, "AGAIN_S", 0.5)

    class Thing:
        pass

    things, reached = [Thing(), Thing()], []
    seen = [weakref.ref(thing, lambda _: send("SIGINT")) for thing in things]

    def work() -> None:
        with ended_by_signals():
            things.clear()
            reached.append([each() for each in seen])
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == [[None, None]], "both were lost"
    assert capsys.readouterr().err == ""


def test_what_a_library_catches_comes_again_until_it_arrives(monkeypatch):
    monkeypatch.setattr(signals, "AGAIN_S", 0.5)
    caught = []

    def work() -> None:
        with ended_by_signals():
            for _ in range(3):
                try:
                    if not caught:
                        send("SIGTERM")
                    time.sleep(30)
                except BaseException as error:  # noqa: BLE001 (that is the fault)
                    caught.append(str(error))
            with signals.ending():
                time.sleep(1.2)  # nothing comes any more
            assert str(signals.stopped()) == "SIGTERM"

    work()
    assert caught == ["SIGTERM"] * 3
    assert signals.stopped() is None


def test_the_handler_of_before_is_put_back():
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(n) for n in numbers]
    with ended_by_signals():
        assert not {*before} & {signal.getsignal(n) for n in numbers}
    assert [signal.getsignal(n) for n in numbers] == before


def test_outside_the_main_thread_nothing_is_changed():
    seen = []

    def work() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with ended_by_signals():
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


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


def test_after_the_request_ctrl_c_ends_as_everywhere_else():
    asked = []

    def work() -> None:
        with ended_by_signals(), asked_on_sigint(lambda: asked.append(True)):
            send("SIGINT")
            try:
                send("SIGINT")
            finally:
                send("SIGINT")
                asked.append("tidied")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert asked == [True, "tidied"]


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
