"""Progress goes to stderr: lines that stay whole in a log, a bar only where someone watches."""

from __future__ import annotations

import io
import re
import sys

import pytest

from netzip_mlflow.progress import watching

VARIABLES = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@pytest.fixture(autouse=True)
def plain(monkeypatch) -> None:
    """Whatever the terminal that runs the tests asks for."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def test_lines_carry_seconds_and_stdout_stays_empty(capsys):
    with watching(quiet=False) as (progress, say):
        say("baseline: training 8 epochs")
        progress("training", 0.5)
        say("int8: ptq(int8)")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [re.sub(r"^ *\d+\.\d s  ", "", line) for line in lines] == [
        "baseline: training 8 epochs",
        "int8: ptq(int8)",
    ]


def test_what_looks_like_markup_is_text(capsys):
    with watching(quiet=False) as (_, say):
        say("candidates.small[1] failed: [red]no such key[/red]")
    assert "candidates.small[1] failed: [red]no such key[/red]" in capsys.readouterr().err


def test_a_long_line_stays_one_line_in_a_log(capsys):
    line = "baseline: trained before (run 7d3dbfc5b2624368bc36769427aad064), " + "word " * 20
    with watching(quiet=False) as (_, say):
        say(line)
    assert line.strip() in capsys.readouterr().err


def test_quiet_says_nothing(capsys):
    with watching(quiet=True) as (progress, say):
        say("something")
        progress("training", 0.5)
    assert capsys.readouterr() == ("", "")


def test_no_bar_where_nobody_watches(capsys):
    with watching(quiet=False) as (progress, _):
        for step in range(10):
            progress("training", step / 10)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_the_step(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with watching(quiet=False) as (progress, say):
        progress("training, epoch 3", 0.5)
        say("a line that stays")
    out, err = capsys.readouterr()
    assert out == ""
    assert "training, epoch 3" in err
    assert "a line that stays" in err


def test_a_fault_passes_through():
    def work() -> None:
        with watching(quiet=False):
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        work()


@pytest.mark.parametrize("terminal", ["1", "0"])
def test_work_goes_on_where_nothing_can_be_written(monkeypatch, terminal):
    """`netzip ... 2>&1 | head -3`, or a terminal that was closed."""

    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setenv("FORCE_COLOR", terminal)
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    monkeypatch.setattr(sys, "stderr", Gone())
    with watching(quiet=False) as (progress, say):
        say("baseline: training 8 epochs")
        progress("training", 0.5)
