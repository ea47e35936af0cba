"""How each metric is called and printed: label, unit, direction, digits, interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from netzip_mlflow.report.ranking import Row, number

__all__ = [
    "QUANTITIES",
    "Quantity",
    "big",
    "data",
    "interval",
    "milliseconds",
    "percent",
    "plain",
    "points",
    "probability",
    "quantity",
    "thousandths",
    "times",
]


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
    return f"{_unsigned_zero(value, 2):.2f}".replace("-", "−")


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
class Quantity:
    """One metric: `show` prints a value; the axis is `value / scale` in `unit`."""

    key: str
    label: str
    better: str = ""
    unit: str = ""
    scale: float = 1.0
    show: Callable[[float], str] = plain

    def axis(self) -> str:
        """The axis' text, ``Latency, ms``."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def title(self) -> str:
        """``Latency (less is better)``."""
        return f"{self.label} ({self.better} is better)" if self.better else self.label


QUANTITIES: dict[str, Quantity] = {
    q.key: q
    for q in (
        Quantity("accuracy/top1", "Top-1 accuracy", "more", "%", 0.01, percent),
        Quantity("accuracy/top5", "Top-5 accuracy", "more", "%", 0.01, percent),
        Quantity("accuracy/map50_95", "mAP50-95", "more", "%", 0.01, percent),
        Quantity("accuracy/map50", "mAP50", "more", "%", 0.01, percent),
        Quantity("accuracy/f1_macro", "Macro F1", "more", "%", 0.01, percent),
        Quantity("accuracy/ece", "Expected calibration error", "less"),
        Quantity("accuracy/drop_points", "Drop of accuracy", "less", "points", 1.0, points),
        Quantity("accuracy/mcnemar_p", "McNemar's exact p", show=probability),
        Quantity("speed/latency_ms", "Latency of one sample", "less", "ms", 1.0, milliseconds),
        Quantity("speed/latency_ms_p95", "Latency, p95", "less", "ms", 1.0, milliseconds),
        Quantity("speed/chats", "CHATS", "less", "G bit-operations", 1e9, big),
        Quantity("speed/ops", "Operations", "less", "M", 1e6, big),
        Quantity("speed/macs", "MACs", "less", "M", 1e6, big),
        Quantity("size/disk_bytes", "Size on disk", "less", "kB", 1e3, data),
        Quantity("size/zip_bytes", "Size zipped", "less", "kB", 1e3, data),
        Quantity("size/parameters", "Parameters", "less", "k", 1e3, big),
        Quantity("size/nonzero", "Non-zero parameters", "less", "k", 1e3, big),
        Quantity("size/sparsity", "Sparsity", "", "%", 0.01, percent),
        Quantity("size/ram_bytes", "Peak RAM of a fresh process", "less", "MB", 1e6, data),
        Quantity("size/cpu_percent", "CPU utilisation", "less", "%"),
        Quantity("size/load_ms", "Load time", "less", "ms", 1.0, milliseconds),
        Quantity("size/first_inference_ms", "First inference", "less", "ms", 1.0, milliseconds),
        Quantity("energy/joules", "Energy of one inference", "less", "J"),
        Quantity("energy/watts", "Power", "less", "W"),
        Quantity("ratio/P", "P, performance", "more", "", 1.0, thousandths),
        Quantity("ratio/S", "S, speed-up", "more", "", 1.0, times),
        Quantity("ratio/C", "C, compression", "more", "", 1.0, times),
        Quantity("ratio/E", "E, efficiency", "more", "", 1.0, times),
        Quantity("ratio/its", "Latency ratio, baseline / model", "more", "", 1.0, times),
        Quantity("score/ocs", "OCS", "more", "", 1.0, times),
        Quantity("fidelity/agreement", "Agreement with the baseline", "more", "%", 0.01, percent),
        Quantity("fidelity/positive_flips", "Wrong to right", "", "%", 0.01, percent),
        Quantity("fidelity/negative_flips", "Right to wrong", "less", "%", 0.01, percent),
        Quantity(
            "fidelity/worst_class_drop_points", "Worst class's recall, drop", "less", "points",
            1.0, points,
        ),
    )
}  # fmt: skip


def quantity(key: str) -> Quantity:
    """What is known of a metric; one that is not in the table is shown under its own key."""
    return QUANTITIES.get(key, Quantity(key, key))


def interval(row: Row, key: str, show: Callable[[float], str] | None = None) -> str:
    """``2.24 [2.21, 2.27]``, without brackets where there is no interval, empty where absent.

    A unit that all three share stands once, at the end: ``0.757 [0.746, 0.770] ms``.
    """
    show = show or quantity(key).show
    value = number(row, key)
    if value is None:
        return ""
    low, high = number(row, f"{key}_low"), number(row, f"{key}_high")
    if low is None or high is None:
        return show(value)
    parts = [show(v).partition(" ") for v in (value, low, high)]
    (middle, _, unit), (lower, *_), (upper, *_) = parts
    if {p[2] for p in parts} == {unit}:
        return f"{middle} [{lower}, {upper}] {unit}".rstrip()
    return f"{show(value)} [{show(low)}, {show(high)}]"
