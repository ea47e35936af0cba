from __future__ import annotations

import doctest

import numpy as np
import pytest

from netzip_mlflow.errors import InputError
from netzip_mlflow.runtimes import adapter
from netzip_mlflow.runtimes.adapter import Adapter


def images(n, seed=1):
    return np.random.default_rng(seed).random((n, 3, 8, 8), np.float32)


def test_normalisation_is_on_the_unit_scale():
    x = images(2)
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    found = Adapter(mean=tuple(mean), std=tuple(std), scale=2).convert(x, np.float64)
    wanted = (x - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1) * 2
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float64


def test_one_figure_serves_every_channel_and_integers_are_clipped():
    x = np.array([0.0, 0.4, 0.9]).astype(np.float32).reshape(1, 3, 1, 1)
    found = Adapter(mean=(0.1,), scale=10).convert(x, np.uint8)
    assert found.ravel().tolist() == [0, 3, 8]
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "chwn"}, "layout: is 'chwn'; allowed: nchw, nhwc"),
        ({"std": (1.0, 0.0)}, "std: is"),
        ({"mean": ()}, "mean: is"),
        ({"mean": (float("nan"),)}, "mean: is"),
        ({"scale": 0}, "scale: is 0"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(InputError, match=message):
        Adapter(**arguments)


def test_figures_for_another_number_of_channels():
    with pytest.raises(InputError, match="mean: has 2 figures for 3 channels"):
        Adapter(mean=(0.1, 0.2)).convert(images(1), np.float32)


def test_examples_hold():
    result = doctest.testmod(adapter)
    assert result.attempted
    assert not result.failed
