"""The errors that netzip-mlflow raises, and the exit status each one means.

NetzipError                 1   failed while running
├── InputError              2   bad input: nothing was started
│   └── TrackingUnavailable 2   the tracking server cannot be reached at start
├── TrackingLost            1   the tracking server went away in the middle
└── SplitSealed             1   something other than the final evaluation asked for the test split
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "InputError",
    "NetzipError",
    "Problem",
    "SplitSealed",
    "TrackingLost",
    "TrackingUnavailable",
    "did_you_mean",
]


QUOTED, LISTED = 4000, 100  # characters of one part of a message, lines of all


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """A hint such as ``did you mean 'ptq'?``, or an empty string when nothing is close."""
    close = difflib.get_close_matches(str(given), list(allowed), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input: where it stands, what is wrong, what is allowed."""

    where: str
    what: str
    allowed: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{_short(self.where)}: {_short(self.what)}" if self.where else _short(self.what)
        if self.allowed:
            text += f"; allowed: {_short(self.allowed)}"
        return f"{text} ({self.hint})" if self.hint else text


def _short(text: str) -> str:
    """A text of any length, a value that was given for instance, as a message may quote it."""
    if len(text) <= QUOTED:
        return text
    return f"{text[: QUOTED // 2]}... ({len(text):,} characters) ...{text[-QUOTED // 4 :]}"


class NetzipError(Exception):
    """Something failed while running."""

    exit_status = 1


class InputError(NetzipError):
    """Bad input: says every problem at once; raised before any work and before any run exists."""

    exit_status = 2

    def __init__(self, problems: str | Problem | Iterable[Problem], source: str = "") -> None:
        if isinstance(problems, str):
            problems = [Problem("", problems)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.source = source
        prefix = f"{source}: " if source else ""
        lines = [f"{prefix}{p}" for p in self.problems[:LISTED]]
        if len(self.problems) > LISTED:
            lines.append(f"{prefix}and {len(self.problems) - LISTED:,} more problems")
        super().__init__("\n".join(lines))


class TrackingUnavailable(InputError):
    """The tracking server does not answer; said before anything heavy is imported."""


class TrackingLost(NetzipError):
    """The tracking server went away; the message names the file that holds what was measured."""


class SplitSealed(NetzipError):
    """The test split was asked for outside the final evaluation."""
