"""A technique's parameters: their bounds are data, read by checks, search, lists and docs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netzip_mlflow.errors import Problem, did_you_mean

__all__ = ["Bounds", "Range", "parameter", "parameter_problems", "unread"]


@dataclass(frozen=True)
class Range:
    """What a search tries of a number: a closed range, on a logarithmic scale or in steps."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Bounds:
    """What a parameter may be: a type, a closed range, or a set of choices; None where optional.

    `search` is what a search tries by default: a range or values; None where it keeps the default.
    """

    type: type
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    optional: bool = False
    help: str = ""
    search: Range | tuple[Any, ...] | None = None

    def __str__(self) -> str:
        if self.choices is not None:
            text = " | ".join(map(str, self.choices))
        else:
            kind = {int: "an integer", float: "a number", bool: "true | false", str: "a string"}[
                self.type
            ]
            limits = {
                (True, True): f" from {self.low} to {self.high}",
                (True, False): f" >= {self.low}",
                (False, True): f" <= {self.high}",
            }
            text = kind + limits.get((self.low is not None, self.high is not None), "")
        return f"{text} | null" if self.optional else text

    def admits(self, value: Any) -> bool:
        """Whether a value is allowed; an integer passes where a number is wanted."""
        if value is None:
            return self.optional
        if self.choices is not None:
            return any(value == c and type(value) is type(c) for c in self.choices)
        if self.type is float:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
        elif type(value) is not self.type:
            return False
        return not (
            (self.low is not None and not value >= self.low)
            or (self.high is not None and not value <= self.high)
        )


def parameter(
    default: Any,
    help: str,  # noqa: A002 (the field's usual word)
    *,
    kind: type | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
    search: Range | tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field with its bounds. `kind` is needed only where the default is None."""
    bounds = Bounds(
        type=kind or type(default),
        low=low,
        high=high,
        choices=None if choices is None else tuple(choices),
        optional=default is None,
        help=help,
        search=search,
    )
    return field(default=default, metadata={"bounds": bounds})


def unread(
    given: Mapping[str, Any], keys: Iterable[str], where: str, why: str, allowed: str
) -> list[Problem]:
    """A problem for each parameter that is given and that the technique would not read."""
    told = [key for key in keys if given.get(key)]
    return [Problem(f"{where}.{key}", f"{given[key]!r} given, {why}", allowed) for key in told]


def parameter_problems(technique: type, given: Mapping[str, Any], where: str) -> list[Problem]:
    """Unknown keys and values out of bounds. A class whose parameters depend on one another has a
    static `problems(given, where)` that asks this and adds its own."""
    fields = {f.name: f.metadata["bounds"] for f in dataclasses.fields(technique)}
    problems = []
    for key, value in given.items():
        if key not in fields:
            allowed = ", ".join(fields) or "no parameters"
            problems.append(
                Problem(f"{where}.{key}", "unknown key", allowed, did_you_mean(str(key), fields))
            )
        elif not fields[key].admits(value):
            hint = did_you_mean(str(value), map(str, fields[key].choices or ()))
            problems.append(
                Problem(f"{where}.{key}", f"{value!r} is not allowed", str(fields[key]), hint)
            )
    return problems
