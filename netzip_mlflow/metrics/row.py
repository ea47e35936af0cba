"""One row of a comparison: what is known of a model, as tables, pictures and reports read it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netzip_mlflow.metrics.family import Facts

__all__ = ["ABSENT", "TEXTS", "Row", "join_flags", "split_facts", "split_flags"]

ABSENT = "absent "  # before a key, why the figure is not there


@dataclass(frozen=True)
class Row:
    """A model's names, verdict and figures.

    Attributes:
        name: differs from row to row.
        kind: `baseline`, `candidate`, `trial`, ...
        status: `FINISHED`, or `FAILED` with its `error`.
        accuracy: the key of the accuracy that the score uses.
        metrics: by key; none that is not a number.
        absent: key -> why the figure is not among them.
    """

    name: str
    kind: str = ""
    chain: str = ""
    status: str = ""
    verdict: str = ""
    reasons: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    error: str = ""
    run_id: str = ""
    accuracy: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    absent: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The row of a frame: a column a text, a fact and a metric."""
        texts = {name: getattr(self, name) for name in TEXTS}
        texts |= {"reasons": "\n".join(self.reasons), "flags": join_flags(self.flags)}
        absent = {ABSENT + key: reason for key, reason in self.absent.items()}
        facts = {k: "\n".join(v) if isinstance(v, list) else v for k, v in self.facts.items()}
        return {**texts, **facts, **absent, **self.metrics}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Row:
        """A row of a frame, which may lack columns, or hold NaN where something is absent."""
        texts = {name: _text(record.get(name)) for name in TEXTS}
        facts, absent = split_facts(record)
        metrics = {
            key: float(value)
            for key, value in record.items()
            if "/" in key and not key.startswith(ABSENT) and _is_number(value)
        }
        reasons = tuple(filter(None, texts.pop("reasons").split("\n")))
        flags = split_flags(texts.pop("flags"))
        return cls(
            reasons=reasons, flags=flags, metrics=metrics, facts=facts, absent=absent, **texts
        )


_FIGURES = ("metrics", "facts", "absent")
TEXTS = tuple(f.name for f in dataclasses.fields(Row) if f.name not in _FIGURES)


def split_facts(record: Mapping[str, Any]) -> tuple[Facts, dict[str, str]]:
    """Facts, and why figures are absent, of a row of a frame or of the tag `netzip.facts`."""
    facts = {
        key: value
        for key, read in _FACTS.items()
        if (value := read(record.get(key))) not in (None, "", [])
    }
    absent = {
        key.removeprefix(ABSENT): value
        for key, value in record.items()
        if key.startswith(ABSENT) and isinstance(value, str)
    }
    return facts, absent  # type: ignore[return-value]  (its keys are those of Facts)


def join_flags(flags: Iterable[str]) -> str:
    """Flags in one line: a tag's value, a cell."""
    return ",".join(flag.replace(",", ";").replace("\n", " ") for flag in flags)


def split_flags(line: str) -> tuple[str, ...]:
    """What `join_flags` joined."""
    return tuple(flag for part in line.split(",") if (flag := part.strip()))


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _lines(value: Any) -> list[str]:
    return value if isinstance(value, list) else list(filter(None, _text(value).split("\n")))


def _count(value: Any) -> int | None:
    """A count, which a file's reader may give as a string or a float."""
    try:
        return int(float(value))
    except (TypeError, ValueError):  # None, NaN, words
        return None


_FACTS: dict[str, Callable[[Any], Any]] = {
    "casts": _count,
    "conversions": _count,
    "dynamic_nodes": _count,
    "float_layers": _lines,
    "macs": _text,
    "energy": _text,
    "stopped": _text,
    "noisy": _lines,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
