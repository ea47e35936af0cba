"""Latency by interleaved rounds: models that are compared are timed beside each other.

The protocol is MEASURING.md's, section 3: warm-up until the call time settles; in each round
one block of calls per model, in a shuffled order; a round gives one time per model, its median
call; a ratio is the median over rounds of baseline/candidate, with a bootstrap interval over
rounds; the baseline stands in twice, as an A/A check.

Not aware of: what else the machine does (the A/A check shows it), temperature, batches above
the one that a call was bound to.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from netzip_mlflow.errors import InputError, NetzipError, Problem
from netzip_mlflow.statistics import Interval, bootstrap_median_ratio, median_interval

__all__ = ["FAULTS", "Latency", "Timing", "cores", "interleave", "timed"]

NOISY_HALF_WIDTH = 0.05  # of the A/A ratio
FEWEST_ROUNDS = 5  # below, an interval over rounds says nothing, whatever the budget
_WARM_CALLS, _WARM_NS, _WARM_LIMIT_NS = 10, 200_000_000, 2_000_000_000
_SETTLED = 0.05  # between the medians of the last five calls and the five before

FAULTS = (NetzipError, MemoryError)  # what a call raises where the runtime cannot run its model
Call = Callable[[], None]
Clock = Callable[[], int]


@dataclass(frozen=True)
class Timing:
    """One model's figures.

    Attributes:
        latency_ms: median over rounds.
        p95_ms: over all calls.
        ratio: baseline / this model, median over rounds; exactly 1 for the baseline.
        cpu_percent: user and system time of this process over the model's blocks, as a share of
            wall time x cores.
        rounds_ms: raw, (rounds,): the median call of each block.
        calls_ms: raw, every timed call.
    """

    latency_ms: Interval
    p95_ms: float
    ratio: Interval
    cpu_percent: float
    rounds_ms: np.ndarray
    calls_ms: np.ndarray


@dataclass(frozen=True)
class Latency:
    """What one interleaved measurement found.

    Attributes:
        baseline: name of the baseline.
        timings: by name, the baseline too; without those of `faults`.
        rounds: how many were run.
        aa: the baseline against itself, two separate sessions.
        noisy: the A/A interval leaves out 1, or its half-width exceeds 5 %.
        reasons: why it is noisy, in words.
        stopped: what ended the rounds: `target`, `rounds` or `seconds`.
        faults: name -> why its rounds ended early; the others' went on.
    """

    baseline: str
    timings: Mapping[str, Timing]
    rounds: int
    aa: Interval
    noisy: bool
    reasons: tuple[str, ...]
    stopped: str
    faults: Mapping[str, str] = field(default_factory=dict)

    def keys(self, name: str) -> dict[str, float]:
        """One model's metrics under the keys they are logged as."""
        t = self.timings[name]
        return {
            "speed/latency_ms": t.latency_ms.value,
            "speed/latency_ms_low": t.latency_ms.low,
            "speed/latency_ms_high": t.latency_ms.high,
            "speed/latency_ms_p95": t.p95_ms,
            "speed/rounds": self.rounds,
            "ratio/its": t.ratio.value,
            "ratio/its_low": t.ratio.low,
            "ratio/its_high": t.ratio.high,
            "size/cpu_percent": t.cpu_percent,
        }


def interleave(
    calls: Mapping[str, Call],
    *,
    baseline: str,
    again: Call,
    target: float = 0.02,
    max_seconds: float = 20.0,
    max_rounds: int = 500,
    min_rounds: int = 20,
    seed: int = 0,
    block_ns: int = 20_000_000,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
    progress: Callable[[int, float], None] | None = None,
) -> Latency:
    """Time models against a baseline. A model whose call raises one of `FAULTS` is left out.

    Args:
        calls: by name, what runs one inference; every session is already open.
        baseline: the name in `calls` that ratios refer to.
        again: one inference of a second session of the baseline.
        target: rounds stop when the half-width of every ratio, the A/A's too, is this share of
            the ratio or less, and `min_rounds` were run.
        max_seconds, max_rounds: the budget; seconds count from the first round, and at least 5
            rounds are run whatever they take.
        seed: of the order within rounds and of the bootstrap.
        block_ns: what one block lasts, about; a slower call is a block of its own.
        clock, cpu_clock: wall time and the process's user + system time, nanoseconds.
        progress: told the rounds done and the widest half-width, about every tenth round.

    Raises:
        InputError: when the baseline is not among the calls.
        NetzipError, MemoryError: when the baseline's own call raises it.
    """
    if baseline not in calls:
        raise InputError(Problem("baseline", f"{baseline!r} is not measured", ", ".join(calls)))
    blocks = {name: _Block(call, required=name == baseline) for name, call in calls.items()}
    first, twin = blocks[baseline], _Block(again, required=True)
    session = [*blocks.values(), twin]

    def ratio(block: _Block) -> Interval:
        return bootstrap_median_ratio(first.medians, block.medians, seed=seed)

    def widest() -> float:
        timed = (block for block in session if block is not first and not block.fault)
        return max(ratio(block).half_width for block in timed)

    limits = _Limits(target, max_seconds, max_rounds, min_rounds)
    with _no_collection():
        for block in session:
            block.warm_up(block_ns, clock)
        rounds, stopped = _run_rounds(
            session,
            limits,
            rng=np.random.default_rng(seed),
            clock=clock,
            cpu_clock=cpu_clock,
            widest=widest,
            progress=progress,
        )
    aa = ratio(twin)
    reasons = tuple(_reasons(aa))
    timings = {
        name: block.timing(Interval(1.0, 1.0, 1.0) if block is first else ratio(block), seed)
        for name, block in blocks.items()
        if not block.fault
    }
    faults = {name: block.fault for name, block in blocks.items() if block.fault}
    return Latency(baseline, timings, rounds, aa, bool(reasons), reasons, stopped, faults)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Block:
    """One model's calls, and what they took so far."""

    call: Call
    required: bool  # without it there is nothing to compare with
    fault: str = ""
    calls: int = 1
    medians: list[float] = field(default_factory=list)  # ns, one a round
    durations: list[int] = field(default_factory=list)  # ns, one a call
    wall: int = 0
    cpu: int = 0

    def warm_up(self, block_ns: int, clock: Clock) -> None:
        with self._alone():
            self.calls = _warm_up(self.call, block_ns, clock)

    def run(self, clock: Clock, cpu_clock: Clock) -> None:
        if self.fault:
            return
        with self._alone():
            cpu, wall = cpu_clock(), clock()
            durations = [timed(self.call, clock) for _ in range(self.calls)]
            self.wall += clock() - wall
            self.cpu += cpu_clock() - cpu
            self.medians.append(float(np.median(durations)))
            self.durations += durations

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A fault within is this model's own, unless it is required."""
        try:
            yield
        except FAULTS as error:
            if self.required:
                raise
            self.fault = str(error) or type(error).__name__

    def timing(self, ratio: Interval, seed: int) -> Timing:
        rounds_ms = np.asarray(self.medians) / 1e6
        calls_ms = np.asarray(self.durations) / 1e6
        return Timing(
            latency_ms=median_interval(rounds_ms, seed=seed),
            p95_ms=float(np.percentile(calls_ms, 95)),
            ratio=ratio,
            cpu_percent=100 * self.cpu / self.wall / cores(),
            rounds_ms=rounds_ms,
            calls_ms=calls_ms,
        )


@dataclass(frozen=True)
class _Limits:
    target: float
    max_seconds: float
    max_rounds: int
    min_rounds: int


def _run_rounds(
    blocks: Sequence[_Block],
    limits: _Limits,
    *,
    rng: np.random.Generator,
    clock: Clock,
    cpu_clock: Clock,
    widest: Callable[[], float],
    progress: Callable[[int, float], None] | None,
) -> tuple[int, str]:
    """Run rounds until a limit is met; how many, and which limit."""
    start, rounds = clock(), 0
    check = max(FEWEST_ROUNDS, limits.min_rounds)
    while True:
        for i in rng.permutation(len(blocks)):
            blocks[i].run(clock, cpu_clock)
        rounds += 1
        over = clock() - start >= limits.max_seconds * 1e9
        spent = "seconds" if over and rounds >= FEWEST_ROUNDS else ""
        spent = "rounds" if rounds >= limits.max_rounds else spent
        if not spent and rounds < check:
            continue
        half_width = widest()
        if progress is not None:
            progress(rounds, half_width)
        if half_width <= limits.target and rounds >= limits.min_rounds:
            return rounds, "target"
        if spent:
            return rounds, spent
        # A check resamples every ratio: a tenth more rounds before the next keeps that cheap.
        check = rounds + max(1, rounds // 10)


def _warm_up(call: Call, block_ns: int, clock: Clock) -> int:
    """Call until the time of a call settles; how many calls fill a block."""
    start = clock()
    durations: list[int] = []
    while True:
        durations.append(timed(call, clock))
        if len(durations) < _WARM_CALLS:
            continue
        late, early = np.median(durations[-5:]), np.median(durations[-10:-5])
        elapsed = clock() - start
        settled = elapsed >= _WARM_NS and abs(late - early) <= _SETTLED * early
        if settled or elapsed >= _WARM_LIMIT_NS:
            return max(1, math.ceil(block_ns / max(1.0, float(late))))


def timed(call: Call, clock: Clock) -> int:
    """Nanoseconds of one call."""
    start = clock()
    call()
    return clock() - start


def _reasons(aa: Interval) -> Iterator[str]:
    shown = f"{aa.value:.3f} [{aa.low:.3f}, {aa.high:.3f}]"
    if not aa.contains(1.0):
        yield f"the baseline differs from itself: {shown} does not contain 1"
    if aa.half_width > NOISY_HALF_WIDTH:
        yield f"the baseline against itself is only known to {aa.half_width:.1%}: {shown}"


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection within: it would fall on some model's block."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
