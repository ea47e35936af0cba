"""What a candidate must keep, and by how much it does not, in one scale (MEASURING.md, 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from netzip_mlflow.scoring.ratios import Metrics, prefix

if TYPE_CHECKING:
    from netzip_mlflow.recipe import ScoreSpec, SearchLimits

__all__ = ["TIMED", "Constraints", "violation"]

MIB = 2**20
FLOOR, FLOOR_POINTS = 0.01, 0.1  # of the baseline's value; of accuracy
# drops come from counts of samples: 100 * (a - b) must not miss the limit by a rounding error
SLACK = 1e-9
TIMED = ("max_latency_ms", "min_speedup")


@dataclass(frozen=True)
class Constraints:
    """Limits on a candidate; None: no limit.

    The drop is that of the primary accuracy, in points; `strict` judges its interval's upper end.
    `min_speedup` is the interleaved latency ratio, `min_agreement` a fraction of predictions.
    """

    max_drop_points: float
    strict: bool = False
    max_latency_ms: float | None = None
    max_disk_mib: float | None = None
    min_speedup: float | None = None
    min_agreement: float | None = None
    max_worst_class_drop_points: float | None = None

    @classmethod
    def from_spec(cls, score: ScoreSpec, limits: SearchLimits | None = None) -> Constraints:
        """What a recipe wants kept; `limits`: those of its search."""
        further = {} if limits is None else limits.model_dump()
        return cls(score.max_drop_points, score.strict, **further)

    @property
    def timed(self) -> tuple[str, ...]:
        """The limits that only a timing can judge."""
        return tuple(name for name in TIMED if getattr(self, name) is not None)

    def least(self, accuracy: float) -> float:
        """The accuracy (a fraction) below which the limit on the drop is broken for certain."""
        return accuracy - (self.max_drop_points + SLACK) / 100

    def names(self) -> tuple[str, ...]:
        """The limits that are set, in a fixed order."""
        given = [f.name for f in fields(self) if f.name != "strict"]
        return tuple(name for name in given if getattr(self, name) is not None)

    def describe(self) -> str:
        """All limits in one line of words."""
        end = " (upper end of its interval)" if self.strict else ""
        drop = f"drop of the primary accuracy{end} at most {self.max_drop_points:g} points"
        further = [f"{name} {getattr(self, name):g}" for name in self.names()[1:]]
        return ", ".join([f"{drop} on validation", *further])

    def reasons(
        self, baseline: Metrics, candidate: Metrics, split: str = "validation"
    ) -> tuple[str, ...]:
        """Whether each limit beside the drop is kept, in words, with the figure."""
        excesses = self.violations(baseline, candidate, split)
        return tuple(
            f"{name}: {self._figure(name, baseline, candidate, prefix(split))[0]:.4g}, "
            f"{'outside' if excesses[name] > 0 else 'within'} the limit of {getattr(self, name):g}"
            for name in self.names()[1:]
        )

    def violations(
        self, baseline: Metrics, candidate: Metrics, split: str = "validation"
    ) -> dict[str, float]:
        """(excess over the limit) / max(|limit|, floor) by limit: at most 0 where it is kept.

        The floor is 0.1 points for accuracy, 1 % of the baseline's value for everything else. A
        figure that is missing is infinitely far from its limit.
        """
        found = {}
        for name in self.names():
            limit = float(getattr(self, name))
            value, floor = self._figure(name, baseline, candidate, prefix(split))
            excess = limit - value if name.startswith("min_") else value - limit
            if 0 < excess <= SLACK:
                excess = 0.0
            found[name] = excess / max(abs(limit), floor) if math.isfinite(value) else math.inf
        return found

    def _figure(
        self, name: str, baseline: Metrics, candidate: Metrics, before: str
    ) -> tuple[float, float]:
        """What a limit is about, and the floor of its scale."""
        if name == "max_drop_points":
            end = "_high" if self.strict else ""
            return candidate.get(f"{before}accuracy/drop_points{end}", math.nan), FLOOR_POINTS
        if name == "max_worst_class_drop_points":
            key = f"{before}fidelity/worst_class_drop_points"
            return candidate.get(key, math.nan), FLOOR_POINTS
        if name == "min_agreement":
            return candidate.get(f"{before}fidelity/agreement", math.nan), FLOOR
        if name == "min_speedup":
            return candidate.get("ratio/its", math.nan), FLOOR
        if name == "max_latency_ms":
            key = "speed/latency_ms"
            return candidate.get(key, math.nan), FLOOR * baseline.get(key, 0.0)
        size = "size/disk_bytes"
        return candidate.get(size, math.nan) / MIB, FLOOR * baseline.get(size, 0.0) / MIB


def violation(of: Mapping[str, float]) -> float:
    """The sum of what is over its limit, as far as it is known: the scale that Optuna's samplers
    rank by. Infinite where nothing is known.

    Args:
        of: as `Constraints.violations` gives it.

    >>> violation({"max_drop_points": 0.5, "max_disk_mib": -7.0, "min_speedup": 0.25})
    0.75
    """
    over = [max(0.0, excess) for excess in of.values()]
    return sum(excess for excess in over if excess < math.inf) or sum(over)
