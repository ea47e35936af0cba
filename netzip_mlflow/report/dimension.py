"""What a search varies, as an axis: a range, a range on a log scale, or values side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Dimension", "domain", "shorten", "show"]

_PIECES = re.compile(r"[^\s._+]*[\s._+]*")  # a text may be broken behind each


@dataclass(frozen=True)
class Dimension:
    """One varied parameter. `choices` is None for a range."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Any, ...] | None = None

    @classmethod
    def of(cls, name: str, given: Sequence[Any] | Mapping[str, Any]) -> Dimension:
        """From what a recipe would write: a list of values, or `low`, `high` and `log`."""
        if isinstance(given, Mapping):
            return cls(name, given["low"], given["high"], bool(given.get("log")))
        return cls(name, choices=tuple(given))

    @property
    def label(self) -> str:
        """Its name; what may stand at a place of the chain, the ticks say."""
        name = self.name.partition(" (")[0] if self.choices else self.name
        return f"{name} (log)" if self.log else name

    def place(self, value: Any) -> float:
        """Where a value stands between the ends, from 0 to 1."""
        if self.choices is not None:
            same = [v == value and type(v) is type(value) for v in self.choices]
            return (same.index(True) + 0.5) / len(self.choices)
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places, as `place` gives them, and what is written there."""
        if self.choices is not None:
            return [(self.place(value), show(value)) for value in self.choices]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        if isinstance(self.low, int) and isinstance(self.high, int):
            middle = round(middle)
        ends = sorted({self.low, middle, self.high})
        return [(self.place(value), show(value)) for value in ends]


def show(value: Any) -> str:
    """A parameter's value as a recipe writes it, numbers with three digits.

    >>> show(0.0316227766), show(None), show(True), show("qat+ptq"), show(4)
    ('0.0316', 'null', 'true', 'qat+ptq', '4')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def shorten(text: str, width: int, lines: int = 2) -> str:
    """A text in so many lines of a width at most; what is cut off is shown as cut off.

    >>> shorten("prune_channels.importance", 16), shorten("place 2 (finetune, qat, none)", 12)
    ('prune_channels.\\nimportance', 'place 2\\n(finetune…')
    """
    parts = [""]
    for piece in _PIECES.findall(text):
        for start in range(0, len(piece), width):
            bit = piece[start : start + width]
            if len((parts[-1] + bit).rstrip()) > width:
                parts.append("")
            parts[-1] += bit
    parts = [part.strip() for part in parts]
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1][: width - 1].rstrip(", ") + "…"]
    return "\n".join(parts)


def domain(given: Sequence[Any] | Mapping[str, Any]) -> str:
    """What may be chosen, in words.

    >>> domain({"low": 0.001, "high": 0.1, "log": True}), domain([8, 4, None])
    ('0.001 to 0.1, log', '8, 4, null')
    """
    if isinstance(given, Mapping):
        scale = ", log" if given.get("log") else ""
        return f"{show(given['low'])} to {show(given['high'])}{scale}"
    return ", ".join(map(show, given))
