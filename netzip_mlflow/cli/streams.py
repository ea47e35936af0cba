"""Stdout is for the result alone: whatever else prints while a command works reaches stderr.

A user's module, a library in C and processes that are started write where they like, so both
`sys.stdout` and the descriptor below it lead to stderr meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from typer.core import TyperCommand

__all__ = ["Command", "encodable", "no_more", "result_alone", "stdout"]

_OUT, _ERR = 1, 2


class Command(TyperCommand):
    """A command that prints nothing but its result; its help is printed before."""

    def invoke(self, ctx: Any) -> Any:
        """Run it with stdout led to stderr."""
        with result_alone():
            return super().invoke(ctx)


@contextlib.contextmanager
def result_alone() -> Iterator[None]:
    """While it lasts, only what is printed within `stdout` reaches stdout."""
    global _outer  # noqa: PLW0603 (the process has one stdout)
    before, kept = _outer, (sys.stdout, _descriptor())
    try:
        _outer = kept
        _lead_to_stderr()
        yield
    finally:
        _outer = before
        _restore(*kept)
        if kept[1] is not None:
            os.close(kept[1])


@contextlib.contextmanager
def stdout() -> Iterator[None]:
    """Stdout itself, within `result_alone`."""
    if _outer is None:
        yield
        return
    _restore(*_outer)
    try:
        yield
    finally:
        _lead_to_stderr()


def no_more() -> None:
    """The process has said its result: what is printed while it ends reaches stderr."""
    _lead_to_stderr()


_outer: tuple[TextIO, int | None] | None = None


def encodable() -> None:
    """What the terminal's encoding lacks is printed escaped, and fails nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _descriptor() -> int | None:
    """A second descriptor of stdout; None where the process was started without one."""
    if sys.__stdout__ is None or sys.__stderr__ is None:
        return None
    return os.dup(_OUT)


def _lead_to_stderr() -> None:
    _flush()
    sys.stdout = sys.stderr
    if sys.__stdout__ is not None and sys.__stderr__ is not None:
        os.dup2(_ERR, _OUT)


def _restore(stream: TextIO, descriptor: int | None) -> None:
    _flush()
    sys.stdout = stream
    if descriptor is not None:
        os.dup2(descriptor, _OUT)


def _flush() -> None:
    """What was printed before goes where it was meant to go."""
    for stream in {sys.stdout, sys.__stdout__}:
        with contextlib.suppress(AttributeError, ValueError):  # there is none, or it is closed
            stream.flush()
