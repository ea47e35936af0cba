"""What a search may choose for one parameter: a range or a set of values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import Problem, did_you_mean
from netzip_mlflow.techniques import Bounds, Range

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["Choices", "Domain", "Interval", "domain"]

KEYS = ("low", "high", "log", "step")
AUTO = "auto"


@dataclass(frozen=True)
class Choices:
    """One of some values: numbers, texts, truth values, None."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " | ".join("null" if v is None else str(v) for v in self.values)

    def suggest(self, trial: Trial, name: str) -> Any:
        return trial.suggest_categorical(name, self.values)

    def holds(self, value: Any) -> bool:
        return any(value == v and type(value) is type(v) for v in self.values)

    def some(self) -> Any:
        """A value of it, rather not None: what would be read if anything is."""
        return next((v for v in self.values if v is not None), None)


@dataclass(frozen=True)
class Interval(Range):
    """A closed range of numbers; `step` None: every number of it, `whole`: integers."""

    whole: bool = False

    def __str__(self) -> str:
        scale = ", logarithmic" if self.log else ""
        step = "" if self.step is None else f", in steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{scale}{step}"

    def suggest(self, trial: Trial, name: str) -> Any:
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if not self.low <= value <= self.high or self.step is None:
            return self.low <= value <= self.high
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-8)

    def some(self) -> Any:
        """A value of it."""
        return int(self.low) if self.whole else self.low


Domain = Choices | Interval


def domain(bounds: Bounds, given: Any, where: str) -> Domain | list[Problem]:
    """What a recipe's search gives for a parameter that is to be chosen, or what is wrong with it.

    Args:
        bounds: what the parameter may be.
        given: a list of values, a mapping with `low` and `high` (and `log`, `step`), or `auto`:
            what the technique proposes.
    """
    if given == AUTO:
        proposed = bounds.search
        if proposed is None:
            return [Problem(where, "the technique proposes nothing", "low and high, or a list")]
        if isinstance(proposed, Range):
            step = proposed.step
            return Interval(proposed.low, proposed.high, proposed.log, step, bounds.type is int)
        return Choices(proposed)
    if isinstance(given, list | tuple):
        return _choices(bounds, tuple(given), where)
    return _interval(bounds, given, where)


def _choices(bounds: Bounds, values: tuple[Any, ...], where: str) -> Domain | list[Problem]:
    if not values:
        return [Problem(where, "no value to choose from", str(bounds))]
    bad = [v for v in values if not bounds.admits(v)]
    if bad:
        hint = did_you_mean(str(bad[0]), map(str, bounds.choices or ()))
        return [Problem(where, f"{bad[0]!r} is not allowed", str(bounds), hint)]
    if len({(type(v), v) for v in values}) < len(values):
        return [Problem(where, "a value stands there twice", "each once")]
    return Choices(values)


def _interval(bounds: Bounds, given: Mapping[str, Any], where: str) -> Domain | list[Problem]:
    fault = next(_faults(bounds, given, where), None)
    if fault is not None:
        return [fault]
    low, high, log, step = (given.get(key) for key in KEYS)
    return Interval(low, high, bool(log), step, bounds.type is int)  # type: ignore[arg-type]  (seen)


def _faults(bounds: Bounds, given: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """What is wrong with a range; each fault supposes that those before are not there."""
    for key in given:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS)
            yield Problem(f"{where}.{key}", "unknown key", ", ".join(KEYS), hint)
    if bounds.choices is not None or bounds.type not in (int, float):
        yield Problem(where, "a range given", f"a list of these: {bounds}")
    for key in KEYS[:2]:
        if key not in given:
            yield Problem(f"{where}.{key}", "is missing", "low and high")
        elif given[key] is None or not bounds.admits(given[key]):
            yield Problem(f"{where}.{key}", f"{given[key]!r} is not allowed", str(bounds))
    low, high, log, step = (given.get(key) for key in KEYS)
    if not low < high:  # type: ignore[operator]  (both are numbers by now)
        yield Problem(where, f"low {low} and high {high} given", "low below high")
    if not isinstance(log, bool | None):
        yield Problem(f"{where}.log", f"{log!r} is not allowed", "true | false")
    number = int if bounds.type is int else int | float
    if step is not None and (isinstance(step, bool) or not isinstance(step, number) or step <= 0):
        yield Problem(f"{where}.step", f"{step!r} is not allowed", "a number above 0")
    if log and (step is not None or low <= 0):  # type: ignore[operator]
        yield Problem(where, "log given", "low above 0, and no step beside it")
