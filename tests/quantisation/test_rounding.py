"""Codes and scales against brute force and values by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.quantisation.rounding import codes, fit

ALLOWED = {
    "int8": range(-127, 128),
    "int4": range(-7, 8),
    "int3": (-5, -3, -1, 1, 3, 5),
    "int2": (-3, -1, 1, 3),
    "ternary": (-1, 0, 1),
    "binary": (-1, 1),
}
NARROW = [form for form in ALLOWED if form != "int8"]
every_form = pytest.mark.parametrize("form", ALLOWED)
every_narrow_form = pytest.mark.parametrize("form", NARROW)


def _rows(seed: int, channels: int = 6, n: int = 90) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(0, draw.uniform(0.01, 2, (channels, 1)), (channels, n))


def _error(weight: np.ndarray, scale: np.ndarray, form: str) -> np.ndarray:
    """Squared error of each channel with the nearest of all codes, one by one."""
    grid = np.array(ALLOWED[form]) * scale[:, None]
    return np.square(weight[..., None] - grid[:, None, :]).min(axis=2).sum(axis=1)


@every_form
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(1e-3, 1e3))
def test_each_weight_gets_the_nearest_code(form: str, seed: int, factor: float) -> None:
    weight = _rows(seed, 3, 20)
    scale = np.abs(weight).max(axis=1) * factor / 127
    found = codes(weight, scale, form)
    assert found.dtype == np.int8
    assert set(found.ravel()) <= set(ALLOWED[form])
    error = np.square(found * scale[:, None] - weight).sum(axis=1)
    np.testing.assert_allclose(error, _error(weight, scale, form), rtol=1e-9, atol=1e-300)


def test_codes_by_hand() -> None:
    weight = np.array([[-9.0, -2.2, -0.4, 0.0, 0.6, 1.9, 2.1, 9.0]])
    one = np.ones(1)
    assert codes(weight, one, "int4").tolist() == [[-7, -2, 0, 0, 1, 2, 2, 7]]
    assert codes(weight, one, "int3")[0, [0, 1, 2, 4, 5, 6, 7]].tolist() == [-5, -3, -1, 1, 1, 3, 5]
    assert codes(weight, one, "int2")[0, [0, 1, 2, 4, 5, 6, 7]].tolist() == [-3, -3, -1, 1, 1, 3, 3]
    assert codes(weight, one, "ternary").tolist() == [[-1, -1, 0, 0, 1, 1, 1, 1]]
    assert codes(weight * 50, one, "int8", 64)[0, [0, -1]].tolist() == [-64, 64]
    assert codes(weight * 50, one, "int8")[0, [0, -1]].tolist() == [-127, 127]


def test_in_eight_bits_the_largest_weight_gets_the_largest_code() -> None:
    weight = np.array([[0.5, -2.54], [1.27, 0.0]])
    np.testing.assert_allclose(fit(weight, "int8"), [0.02, 0.01])
    np.testing.assert_allclose(fit(weight, "int8", reduced=True), [2.54 / 64, 1.27 / 64])
    np.testing.assert_array_equal(fit(weight, "int4", reduced=True), fit(weight, "int4"))


@pytest.mark.parametrize(
    ("form", "weight", "scale"),
    [
        ("int4", [0.7, -0.3, 0.1, 0.0], 0.1),
        ("int3", [0.5, -0.3, 0.1, -0.1], 0.1),
        ("int2", [0.6, -0.2, 0.2, -0.6], 0.2),
        ("ternary", [0.3, 0.0, -0.3, 0.3], 0.3),
        ("binary", [0.4, -0.4, -0.4, 0.4], 0.4),
    ],
)
def test_weights_on_a_grid_find_it(form: str, weight: list[float], scale: float) -> None:
    found = fit(np.array([weight]), form)
    np.testing.assert_allclose(found, [scale])
    np.testing.assert_allclose(codes(np.array([weight]), found, form) * found, [weight])


@every_narrow_form
@pytest.mark.parametrize("n", [9, 90, 1152])
def test_the_squared_error_is_next_to_the_least_there_is(form: str, n: int) -> None:
    weight = _rows(n, 8, n)
    whole = np.abs(weight).max(axis=1) / max(ALLOWED[form])
    error = _error(weight, fit(weight, form), form)
    least = np.min([_error(weight, whole * s, form) for s in np.linspace(0.02, 1.5, 800)], axis=0)
    assert (error <= 1.02 * least + 1e-12).all()
    if n > 9 and form != "binary":
        assert error.sum() < _error(weight, whole, form).sum(), "clipping pays"


@every_form
def test_channels_are_fitted_alone(form: str) -> None:
    weight = _rows(3)
    alone = np.concatenate([fit(row[None], form) for row in weight])
    np.testing.assert_array_equal(fit(weight, form), alone)
    np.testing.assert_allclose(fit(weight * 3.0, form), alone * 3.0)


@every_form
def test_a_channel_of_zeros_stays_as_good_as_zero(form: str) -> None:
    weight = _rows(4)
    weight[2] = 0
    scale = fit(weight, form)
    assert (scale > 0).all()
    stands_for = np.abs(codes(weight, scale, form)[2] * scale[2]).max()
    assert stands_for <= (0 if 0 in ALLOWED[form] else np.abs(weight).max() * 2.0**-18)
    nothing = np.zeros((2, 5))
    scale = fit(nothing, form)
    assert (scale > 0).all()
    assert np.abs(codes(nothing, scale, form) * scale[:, None]).max() < 1e-5
