"""The trials of a search as values: what became of each, when it ended, and what was varied."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["OUTCOMES", "Trial", "Trials", "ordered", "read"]

# in the order in which they are told of
OUTCOMES = {
    "feasible": "within the constraint",
    "infeasible": "outside the constraint",
    "same": "the same chain again",
    "skipped": "skipped by the bound",
    "stopped": "stopped early",
    "failed": "failed",
}
_FIXED = {
    "trial", "slot", "state", "outcome", "feasible", "ocs", "drop", "drop_low", "drop_high",
    "reason", "candidate", "chain", "run_id", "started", "ended",
}  # fmt: skip
_RATIO, _VIOLATION, _PLACE = "ratio/", "violation.", "place "


@dataclass(frozen=True)
class Trial:
    """One trial. Figures are those on validation; what was not judged to its end has none.

    Args:
        outcome: one of `OUTCOMES`, `running`, or `lost` (broken off, and tried again).
        ratios: P, S, C.
        drop: in points, `low` and `high` its interval.
        violations: by limit, at most 0 where it is kept.
        parameters: what the sampler chose, by name; conditional ones only where they stand.
    """

    number: int
    outcome: str
    chain: str = ""
    candidate: str = ""
    reason: str = ""
    ocs: float | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    drop: float | None = None
    low: float | None = None
    high: float | None = None
    violations: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def judged(self) -> bool:
        """Whether it has figures: it was judged to its end."""
        return self.outcome in ("feasible", "infeasible") and self.ocs is not None


@dataclass(frozen=True)
class Trials:
    """All trials of a study by number, and what is known of them together.

    Args:
        trials: without those that were broken off: these are tried again.
        ranking: numbers, the best first, then by what they violate.
        varied: what was varied, by name, as a recipe writes it: a list of values, or `low`,
            `high`, `log`.
        planned: how many trials there are to be.
        lost: how many were broken off.
    """

    trials: tuple[Trial, ...]
    ranking: tuple[int, ...]
    varied: Mapping[str, Any]
    planned: int
    lost: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many came to each of `OUTCOMES`, in that order; those that nothing came to too."""
        found = Counter(trial.outcome for trial in self.trials)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    @property
    def ended(self) -> int:
        return sum(self.counts.values())

    @property
    def judged(self) -> tuple[Trial, ...]:
        """Those with figures."""
        return tuple(trial for trial in self.trials if trial.judged)

    def of(self, number: int) -> Trial:
        """The trial of a number."""
        return next(trial for trial in self.trials if trial.number == number)

    @property
    def best(self) -> Trial | None:
        """The best feasible one."""
        first = self.first
        return first if first is not None and first.outcome == "feasible" else None

    @property
    def first(self) -> Trial | None:
        """The best, or where none is feasible the one that violates least."""
        return self.of(self.ranking[0]) if self.ranking else None

    def seconds(self) -> dict[int, float]:
        """When each trial ended, in seconds of the search, by number.

        The clock stands still while no trial runs, as between a search and its resumption.
        """
        spans = {t.number: (t.started, t.ended) for t in self.trials if t.started and t.ended}
        whole: list[tuple[datetime, datetime, float]] = []  # of work without a pause, at a time
        for start, end in sorted(spans.values()):
            if whole and start <= whole[-1][1]:
                begun, until, at = whole.pop()
                whole.append((begun, max(until, end), at))
            else:
                done = sum((until - begun).total_seconds() for begun, until, _ in whole)
                whole.append((start, end, done))
        found = {}
        for number, (_, end) in spans.items():
            begun, _, at = next(span for span in whole if end <= span[1])
            found[number] = at + (end - begun).total_seconds()
        return found

    @property
    def at_work(self) -> float:
        """Seconds in which at least one trial was at work."""
        return max(self.seconds().values(), default=0.0)

    @property
    def left(self) -> float | None:
        """Seconds that those which have not ended will take, if they take as long as the others;
        None before any has ended."""
        ended = self.ended
        return self.at_work / ended * max(0, self.planned - ended) if ended else None


def read(
    rows: Iterable[Mapping[str, Any]],
    ranking: Sequence[int],
    varied: Mapping[str, Any],
    planned: int,
) -> Trials:
    """Trials from rows by column: `trial` (its number), `outcome`, `ocs`, `ratio/P`, `drop`,
    `violation.<limit>` ..., and every other column one that was varied."""
    trials = sorted(map(_trial, rows), key=lambda trial: trial.number)
    kept = tuple(trial for trial in trials if trial.outcome != "lost")
    return Trials(kept, tuple(ranking), varied, planned, len(trials) - len(kept))


def ordered(names: Iterable[str]) -> list[str]:
    """Names of what is varied: places of the chain first, then techniques in the order in which
    they were met, each with its parameters."""
    listed = list(names)
    places = sorted(name for name in listed if name.startswith(_PLACE))
    others = [name for name in listed if not name.startswith(_PLACE)]
    families = list(dict.fromkeys(name.partition(".")[0] for name in others))
    return places + sorted(others, key=lambda name: families.index(name.partition(".")[0]))


def _trial(row: Mapping[str, Any]) -> Trial:
    parameters = {
        key: value
        for key, value in row.items()
        if key not in _FIXED and not key.startswith((_RATIO, _VIOLATION))
    }
    return Trial(
        number=row["trial"],
        outcome=row["outcome"],
        chain=row.get("chain", ""),
        candidate=row.get("candidate", ""),
        reason=row.get("reason", ""),
        ocs=_figure(row.get("ocs")),
        ratios=_part(row, _RATIO),
        drop=_figure(row.get("drop")),
        low=_figure(row.get("drop_low")),
        high=_figure(row.get("drop_high")),
        violations=_part(row, _VIOLATION),
        parameters=parameters,
        started=row.get("started"),
        ended=row.get("ended"),
    )


def _part(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}


def _figure(value: Any) -> float | None:
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known else None
