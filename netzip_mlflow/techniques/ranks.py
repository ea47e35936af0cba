"""How many singular values to keep: a share of all, of their energy, or what VBMF says is signal.

`values` are the singular values of one matrix, float64 (L,), descending, L its shorter side.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["by_energy", "by_ratio", "by_vbmf"]

GRID = 1000  # values of the noise's variance that are tried, then again around the best


def by_ratio(full: int, ratio: float) -> int:
    """The share of the full rank, rounded up."""
    return math.ceil(ratio * full - 1e-9)  # 0.07 * 100 is 7.000000000000001


def by_energy(values: np.ndarray, energy: float) -> int:
    """The least rank whose tail holds at most 1 - energy of the squared singular values."""
    squares = values**2
    tails = squares.sum() - np.concatenate([[0.0], np.cumsum(squares)])
    # at energy 1 only the values that rounding cannot tell from zero are left out
    allowed = max(1.0 - energy, np.finfo(float).eps * len(values)) * squares.sum()
    return int(np.argmax(tails <= allowed))


def by_vbmf(values: np.ndarray, longer: int) -> int:
    """The rank that empirical variational Bayes finds, the noise's variance estimated: 0 for noise.

    Source: Nakajima, Sugiyama, Babacan, Tomioka, Global Analytic Solution of Fully-observed
    Variational Bayesian Matrix Factorization (JMLR 14, 2013), theorem 2 (the threshold), theorem 3
    and corollary 1 (the noise). `longer` is the longer side M, alpha = L / M.
    """
    peak = float(values[0]) if len(values) else 0.0
    if peak == 0:
        return 0
    # below float64's own step, relative to the largest, a square says nothing
    scaled = np.maximum(values / peak, math.sqrt(np.finfo(float).eps))
    alpha = len(values) / longer
    threshold = _threshold(alpha)
    variance = _noise_variance(scaled, longer, alpha, threshold)
    return int((scaled > math.sqrt(longer * variance * threshold)).sum())


def _threshold(alpha: float) -> float:
    """x = (1 + tau) (1 + alpha / tau), tau the zero of Phi(tau) + Phi(tau / alpha) with
    Phi(z) = log(z + 1) / z - 1/2: an observed value is signal where gamma^2 > M sigma^2 x."""

    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    low, high = 1e-9, 3.0  # Phi falls, its own zero is 2.51, and alpha <= 1
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if phi(middle) + phi(middle / alpha) > 0 else (low, middle)
    return (1 + low) * (1 + alpha / low)


def _noise_variance(values: np.ndarray, longer: int, alpha: float, threshold: float) -> float:
    """The minimum of the free energy over sigma^2, one variable within known bounds."""
    count, squares = len(values), values**2
    most = min(math.ceil(count / (1 + alpha)) - 1, count - 1)  # no more components than this
    low = max(squares[most] / (longer * threshold), squares[most:].mean() / longer)
    high = squares.mean() / longer
    if low >= high:  # all values alike
        return float(high)
    found = high
    for _ in range(3):  # it has kinks and several minima: a grid, then finer ones around the best
        tried = np.geomspace(low, high, GRID)
        best = int(np.argmin(_free_energy(squares, tried * longer, alpha, threshold)))
        found = float(tried[best])
        low, high = tried[max(best - 1, 0)], tried[min(best + 1, GRID - 1)]
    return float(found)


def _free_energy(
    squares: np.ndarray, scales: np.ndarray, alpha: float, threshold: float
) -> np.ndarray:
    """Sum of psi(gamma^2 / (M sigma^2)) for each M sigma^2 in `scales`, up to constants.

    psi(x) = x - log x, and for signal + log(t + 1) + alpha log(t / alpha + 1) - t with
    t = (x - 1 - alpha + sqrt((x - 1 - alpha)^2 - 4 alpha)) / 2 (theorem 3).
    """
    x = squares[:, None] / scales
    excess = np.maximum(x, threshold) - (1 + alpha)
    t = (excess + np.sqrt(excess**2 - 4 * alpha)) / 2
    gain = np.log1p(t) + alpha * np.log1p(t / alpha) - t
    return (x - np.log(x) + np.where(x > threshold, gain, 0.0)).sum(axis=0)
