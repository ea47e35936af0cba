"""What a chain ships, known before its training: from its untrained network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netzip_mlflow import measuring
from netzip_mlflow.runs import candidates
from netzip_mlflow.search import sizes
from netzip_mlflow.twin import Twin

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Deployable
    from netzip_mlflow.metrics.family import Conditions
    from netzip_mlflow.runs.candidates import Candidate
    from netzip_mlflow.runs.job import Job
    from netzip_mlflow.search.timing_lock import TimingLock
    from netzip_mlflow.techniques import Context, Technique

__all__ = ["Untrained"]

BEGINNINGS = 4  # twins that are kept


@dataclass(eq=False)
class Untrained:
    """Chains walked without training; what was found of one holds for all of equal size
    (`sizes.size_key`), and is kept.

    Sizes and operations are those of the trained network only where `sizes.known` says so.
    """

    work: Job
    conditions: Conditions
    origin: Candidate
    context: Context
    timing_lock: TimingLock
    _sizes: dict[str, Mapping[str, float]] = field(default_factory=dict, init=False)
    _speeds: dict[str, Mapping[str, float]] = field(default_factory=dict, init=False)
    _beginnings: dict[str, Twin] = field(default_factory=dict, init=False)
    _last: tuple[str, measuring.Measurement] | None = field(default=None, init=False)

    def sizes(self, chain: Sequence[Technique]) -> Mapping[str, float]:
        """Sizes and operations, by metric key. To be called, as `speeds`, while `timing_lock` is
        `working`."""
        key = sizes.size_key(chain)
        if key not in self._sizes:
            found = self._made(chain).metrics
            self._sizes[key] = {k: v for k, v in found.items() if k.startswith(("speed/", "size/"))}
        return self._sizes[key]

    def speeds(self, chain: Sequence[Technique]) -> Mapping[str, float]:
        """Latency and its ratio, timed beside the baseline, by metric key; nothing where the timing
        was noisy, or where it failed."""
        key = sizes.size_key(chain)
        if key not in self._speeds:
            assert self.origin.measured is not None  # noqa: S101 (judged before)
            made = self._made(chain).copy()
            with self.timing_lock.alone() as quiet:
                both = [self.origin.measured.copy(), made]
                measuring.time_together(both, self.conditions)
            certain = quiet and "noisy" not in made.flags and not made.fault
            self._speeds[key] = made.metrics if certain else {}
        return self._speeds[key]

    def _made(self, chain: Sequence[Technique]) -> measuring.Measurement:
        """The untrained chain's file, inspected; the last one is kept."""
        key = sizes.size_key(chain)
        if self._last is None or self._last[0] != key:
            assert self.origin.twin is not None  # noqa: S101 (the baseline has one)
            context = dataclasses.replace(self.context, untrained=True, progress=self._progress)
            _, made = candidates.chained(
                len(chain),
                self.origin.twin,
                context,
                lambda number, twin: self._next(chain[: number + 1], twin, context),
            )
            self._last = None
            file = made.save(self.work.folder / "untrained")
            self._last = key, measuring.inspect("untrained", file, self.conditions)
        return self._last[1]

    def _progress(self, what: str, done: float) -> None:
        self.timing_lock.pause()
        self.work.progress(what, done)

    def _next(
        self, beginning: Sequence[Technique], twin: Twin, context: Context
    ) -> Twin | Deployable:
        """What the last technique of a chain's beginning makes of the twin before it; the last few
        twins are kept, since many chains begin alike."""
        key = sizes.size_key(beginning)
        if key in self._beginnings:
            return self._beginnings[key]
        made = beginning[-1].apply(twin, context)
        if isinstance(made, Twin):
            self._beginnings[key] = made
            while len(self._beginnings) > BEGINNINGS:
                del self._beginnings[next(iter(self._beginnings))]
        return made
