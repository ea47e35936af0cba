"""Ranks: hand-worked energies, the true rank of low-rank matrices in noise, the paper's limits."""

from __future__ import annotations

import numpy as np
import pytest

from netzip_mlflow.techniques import ranks


@pytest.mark.parametrize(
    ("full", "ratio", "rank"),
    [(8, 0.5, 4), (3, 0.5, 2), (100, 0.07, 7), (3, 0.01, 1), (16, 1.0, 16), (10, 0.9, 9)],
)
def test_a_ratio_is_rounded_up(full: int, ratio: float, rank: int) -> None:
    assert ranks.by_ratio(full, ratio) == rank


@pytest.mark.parametrize(
    ("energy", "rank"),
    # squares 16, 9, 4, 1 of 30: shares 0.533, 0.833, 0.967, 1
    [(0.01, 1), (0.53, 1), (0.54, 2), (0.83, 2), (0.84, 3), (0.966, 3), (0.97, 4), (1.0, 4)],
)
def test_energy_by_hand(energy: float, rank: int) -> None:
    assert ranks.by_energy(np.array([4.0, 3.0, 2.0, 1.0]), energy) == rank


def test_energy_of_nothing_is_rank_zero() -> None:
    assert ranks.by_energy(np.zeros(4), 0.9) == 0
    assert ranks.by_energy(np.array([2.0, 1.0, 0.0]), 1.0) == 2


def _values(shape: tuple[int, int], rank: int, noise: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    left, right = draw.normal(size=(shape[0], rank)), draw.normal(size=(rank, shape[1]))
    matrix = left @ right / np.sqrt(max(rank, 1)) + noise * draw.normal(size=shape)
    return np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.05, 0.2])
@pytest.mark.parametrize(
    ("shape", "rank"),
    [
        ((16, 27), 1),
        ((32, 288), 8),
        ((50, 200), 10),
        ((64, 64), 5),
        ((64, 576), 12),
        ((128, 512), 0),
    ],
)
def test_vbmf_recovers_the_true_rank(
    shape: tuple[int, int], rank: int, noise: float, seed: int
) -> None:
    assert ranks.by_vbmf(_values(shape, rank, noise, seed), shape[1]) == rank


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_vbmf_does_not_depend_on_the_scale(scale: float) -> None:
    assert ranks.by_vbmf(scale * _values((32, 288), 8, 0.2, 0), 288) == 8


def test_vbmf_of_an_exact_matrix_and_of_nothing() -> None:
    assert ranks.by_vbmf(_values((32, 288), 8, 0.0, 0), 288) == 8
    assert ranks.by_vbmf(np.zeros(5), 9) == 0
    assert ranks.by_vbmf(np.ones(1), 1) in (0, 1)


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.5, 1.0])
def test_the_threshold_is_the_papers(alpha: float) -> None:
    """Its approximation tau = 2.5129 sqrt(alpha) (section 4), exact where alpha is 1."""
    tau = 2.5129 * np.sqrt(alpha)
    near = (1 + tau) * (1 + alpha / tau)
    assert ranks._threshold(alpha) == pytest.approx(near, rel=1e-4 if alpha == 1 else 0.03)


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.5, 1.0])
def test_the_free_energy_has_no_step_at_the_threshold(alpha: float) -> None:
    """There signal and noise explain the value equally well: that is what defines it."""
    threshold = ranks._threshold(alpha)
    around = threshold * np.array([1 - 1e-9, 1 + 1e-9])
    below, above = (
        float(ranks._free_energy(np.array([x]), np.ones(1), alpha, threshold)[0]) for x in around
    )
    assert above == pytest.approx(below, abs=1e-7)
    far = float(ranks._free_energy(np.array([3 * threshold]), np.ones(1), alpha, threshold)[0])
    assert far < 3 * threshold - np.log(3 * threshold), "beyond it signal explains more"


@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_the_noise_that_it_estimates_is_the_noise(noise: float) -> None:
    values = _values((100, 400), 6, noise, 0)
    found = ranks._noise_variance(values, 400, 0.25, ranks._threshold(0.25))
    assert found == pytest.approx(noise**2, rel=0.1)
