"""Drawing a share of samples that keeps the strata's proportions, by sample or by whole groups."""

from __future__ import annotations

import numpy as np

__all__ = ["by_groups", "by_stratum", "quotas"]


def quotas(counts: np.ndarray, wanted: int) -> np.ndarray:
    """How many samples of each stratum to take: proportional, by largest remainder.

    A stratum that is present gets at least one, as long as `wanted` allows one for each.

    Args:
        counts: samples per stratum, int64 (K,), `wanted` <= their sum.
        wanted: samples in all.

    Returns:
        int64 (K,), summing to `wanted`, nowhere above `counts`.
    """
    exact = wanted * counts / counts.sum()
    quota = np.floor(exact).astype(np.int64)
    if wanted >= np.count_nonzero(counts):
        quota = np.maximum(quota, (counts > 0).astype(np.int64))
    while quota.sum() > wanted:
        over = np.where(quota > 1, quota - exact, -np.inf)
        quota[np.argmax(over)] -= 1
    while quota.sum() < wanted:
        under = np.where(quota < counts, exact - quota, -np.inf)
        quota[np.argmax(under)] += 1
    return quota


def by_stratum(strata: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of `wanted` samples, drawn without replacement stratum by stratum; ascending."""
    counts = np.bincount(strata)
    chosen = [
        rng.permutation(np.flatnonzero(strata == c))[:n]
        for c, n in enumerate(quotas(counts, wanted))
        if counts[c]
    ]
    return np.sort(np.concatenate(chosen))


def by_groups(
    strata: np.ndarray, groups: np.ndarray, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions of whole groups holding about `wanted` samples; ascending.

    Groups come in a drawn order; one is taken when that brings the strata's counts nearer to
    their quotas (sum of absolute differences).
    """
    target = quotas(np.bincount(strata), wanted)
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(sizes)[:-1])
    missing = target.copy()
    taken = [np.empty(0, dtype=np.int64)]
    for group in rng.permutation(len(members)):
        held = np.bincount(strata[members[group]], minlength=len(target))
        if np.abs(missing - held).sum() < np.abs(missing).sum():
            missing -= held
            taken.append(members[group])
    return np.sort(np.concatenate(taken))
