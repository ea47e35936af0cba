"""Intervals and tests: what is known about a figure besides its value. Needs numpy only.

Every interval is a 95 % percentile bootstrap (Efron 1979), seeded: the same samples and seed
give the same interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "Interval",
    "bootstrap_drop",
    "bootstrap_mean_drop",
    "bootstrap_median_ratio",
    "mcnemar",
    "median_interval",
]

_TAILS = (2.5, 97.5)  # percentiles of a 95 % interval
_CHUNK = 1_000_000  # resampled figures held at once


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval, in the figure's own unit."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width as a share of |value|: 0.02 means plus or minus 2 %.

        Raises:
            ZeroDivisionError: when the value is 0.
        """
        return (self.high - self.low) / 2 / abs(self.value)

    def contains(self, figure: float) -> bool:
        """Whether `figure` lies within the interval, its ends included."""
        return self.low <= figure <= self.high


def median_interval(samples: ArrayLike, *, seed: int, resamples: int = 2000) -> Interval:
    """The median of `samples` (n,), resampled with replacement.

    Raises:
        ValueError: when there are no samples or one is not finite.

    >>> median_interval([1.0, 1.0, 1.0], seed=0)
    Interval(value=1.0, low=1.0, high=1.0)
    """
    x = np.asarray(samples, np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"samples must be a row of at least one finite figure, got {x.shape}")
    rng = np.random.default_rng(seed)
    medians = np.empty(resamples)
    step = max(1, _CHUNK // len(x))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        chosen = rng.integers(0, len(x), (count, len(x)))
        medians[start : start + count] = np.median(x[chosen], axis=1)
    low, high = np.percentile(medians, _TAILS)
    return Interval(float(np.median(x)), float(low), float(high))


def bootstrap_median_ratio(
    baseline: ArrayLike, candidate: ArrayLike, *, seed: int, resamples: int = 2000
) -> Interval:
    """The median over rounds of baseline/candidate, and its interval over rounds.

    Args:
        baseline, candidate: (rounds,) times, one pair per round; any unit.

    Raises:
        ValueError: when the two differ in length, are empty, or a time is not above 0.
    """
    o, c = np.asarray(baseline, np.float64), np.asarray(candidate, np.float64)
    if o.shape != c.shape or (o <= 0).any() or (c <= 0).any():
        raise ValueError(f"times must be above 0 and come in pairs, got {o.shape} and {c.shape}")
    return median_interval(o / c, seed=seed, resamples=resamples)


def bootstrap_drop(
    correct_o: ArrayLike, correct_c: ArrayLike, *, seed: int, resamples: int = 2000
) -> Interval:
    """The drop in points, 100 x (accuracy_o - accuracy_c), paired over the same samples.

    A sample counts by its outcome alone, so that drawing n samples with replacement is drawing
    from a multinomial over (only o right, only c right, both or none): the same bootstrap,
    without the indices.

    Args:
        correct_o, correct_c: (n,) booleans, baseline and candidate.

    Raises:
        ValueError: when the two differ in length or are empty.
    """
    lost, won, n = _discordant(correct_o, correct_c)
    counts = np.random.default_rng(seed).multinomial(
        n, [lost / n, won / n, (n - lost - won) / n], size=resamples
    )
    drops = 100 * (counts[:, 0] - counts[:, 1]) / n
    low, high = np.percentile(drops, _TAILS)
    return Interval(100 * (lost - won) / n, float(low), float(high))


def bootstrap_mean_drop(
    credit_o: ArrayLike, credit_c: ArrayLike, *, seed: int, resamples: int = 2000
) -> Interval:
    """As `bootstrap_drop`, of samples that may be right in part: credits (n,) from 0 to 1."""
    o, c = np.asarray(credit_o, np.float64), np.asarray(credit_c, np.float64)
    if o.shape != c.shape or o.ndim != 1 or not len(o):
        raise ValueError(f"answers must come in pairs, got {o.shape} and {c.shape}")
    draw, n = np.random.default_rng(seed), len(o)
    lost = 100 * (o - c)
    means = [lost[draw.integers(n, size=n)].mean() for _ in range(resamples)]
    low, high = np.percentile(means, _TAILS)
    return Interval(float(lost.mean()), float(low), float(high))


def mcnemar(correct_o: ArrayLike, correct_c: ArrayLike) -> float:
    """McNemar's exact two-sided p: how likely the discordant pairs are so uneven by chance.

    Binomial with probability 1/2 over the pairs where just one of the two is right; computed in
    whole numbers, so that it is exact for any number of pairs. 1 when no pair is discordant.

    Raises:
        ValueError: when the two differ in length or are empty.

    >>> mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0])  # 2 / 2**5
    0.0625
    """
    lost, won, _ = _discordant(correct_o, correct_c)
    pairs = lost + won
    term = total = 1
    for i in range(min(lost, won)):
        term = term * (pairs - i) // (i + 1)
        total += term
    return min(1.0, (2 * total) / (1 << pairs))


def _discordant(correct_o: ArrayLike, correct_c: ArrayLike) -> tuple[int, int, int]:
    """Pairs where only the baseline is right, pairs where only the candidate is, all pairs."""
    o, c = np.asarray(correct_o, bool), np.asarray(correct_c, bool)
    if o.shape != c.shape or o.ndim != 1 or not len(o):
        raise ValueError(f"answers must come in pairs, got {o.shape} and {c.shape}")
    return int((o & ~c).sum()), int((~o & c).sum()), len(o)
