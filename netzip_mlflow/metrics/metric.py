"""What a figure is called and how it is printed: one record for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Metric",
    "big",
    "data",
    "milliseconds",
    "percent",
    "plain",
    "points",
    "probability",
    "thousandths",
    "times",
]

INTERVAL = "lower and upper end of its 95 % interval: _low, _high"


def plain(value: float) -> str:
    """Three significant digits, but never fewer than the integer part has.

    >>> plain(2.2384), plain(0.77), plain(1234.5), plain(0.0)
    ('2.24', '0.770', '1,234', '0')
    """
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def times(value: float) -> str:
    """A ratio or a score, with two decimals."""
    return f"{_unsigned_zero(value, 2):.2f}".replace("-", "−")


def thousandths(value: float) -> str:
    """A ratio that stays near 1, with three decimals."""
    return f"{value:.3f}"


def percent(value: float) -> str:
    """A fraction as percent, ``88.05 %``."""
    return f"{100 * value:.2f} %"


def points(value: float) -> str:
    """Percentage points with two decimals and a true minus: a drop is positive.

    >>> points(0.16), points(-0.05), points(-0.001)
    ('0.16', '−0.05', '0.00')
    """
    return times(value)


def data(value: float) -> str:
    """Bytes in SI units, ``276.6 kB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            shown = value / factor
            return f"{shown:.{2 if shown < 10 else 1}f} {unit}"
    return f"{value:.0f} B"


def milliseconds(value: float) -> str:
    """``0.755 ms``."""
    return f"{plain(value)} ms"


def probability(value: float) -> str:
    """``0.013``; tiny ones as ``< 0.001``."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def big(value: float) -> str:
    """A count with its SI letter, ``40.6 M``."""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g}"


def _unsigned_zero(value: float, digits: int) -> float:
    return 0.0 if round(value, digits) == 0 else value


@dataclass(frozen=True)
class Metric:
    """One figure: what it is called, what it says, and how it is printed.

    Attributes:
        key: as it is logged, with its unit where it has one; ``<N>`` stands for a number.
        label: of an axis or a line of a report.
        help: what it says, in one line.
        better: which way is better; empty where neither is.
        unit, scale: an axis shows ``value / scale`` in `unit`.
        show: prints a value.
        interval: whether its ends are logged too, as ``KEY_low`` and ``KEY_high``.
        header: of its column in tables; without one it has a column only in files.
        column, factor: its header in published tables (`netzip score`), whose numbers times
            `factor` are in the key's unit.
    """

    key: str
    label: str
    help: str
    better: Literal["more", "less", ""] = ""
    unit: str = ""
    scale: float = 1.0
    show: Callable[[float], str] = plain
    interval: bool = False
    header: str = ""
    column: str = ""
    factor: float = 1.0

    @property
    def name(self) -> str:
        """The key without its family, ``latency_ms``."""
        return self.key.partition("/")[2]

    @property
    def interval_keys(self) -> tuple[str, ...]:
        """The keys of its interval's ends, lower one first; none without an interval."""
        return (f"{self.key}_low", f"{self.key}_high") if self.interval else ()

    def covers(self, key: str) -> bool:
        """Whether this is the record of a key: its own, or one of its interval's.

        >>> Metric("speed/throughput_b<N>", "Throughput", "").covers("speed/throughput_b8")
        True
        """
        pattern = re.escape(self.key).replace("<N>", r"\d+")
        return any(
            re.fullmatch(pattern + end, key)
            for end in ("", *(("_low", "_high") if self.interval else ()))
        )

    def describe(self) -> str:
        """Help, direction and interval in one line."""
        direction = f"{self.better} is better" if self.better else ""
        return "; ".join(filter(None, (self.help, direction, INTERVAL if self.interval else "")))

    def axis(self) -> str:
        """``Latency of one sample, ms``."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def title(self) -> str:
        """``Latency of one sample (less is better)``."""
        return f"{self.label} ({self.better} is better)" if self.better else self.label
