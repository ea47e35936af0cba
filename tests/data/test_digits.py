"""The embedded digits, against scikit-learn's own arrays."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from netzip_mlflow.data import Dataset, load_source, open_source
from netzip_mlflow.data.digits import load
from netzip_mlflow.recipe import DataSpec
from netzip_mlflow.tasks.classification import Classification


def opened(spec: DataSpec, seed: int) -> Dataset:
    """The data set of a recipe, as classification cuts and checks it."""
    source = load_source(spec)
    Classification.cut(source, spec, seed)
    return open_source(source, spec, seed, np.asarray)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return opened(DataSpec(name="digits", validation=0.2, test=0.2), 0)


def test_shape_classes_and_sizes(data: Dataset) -> None:
    assert data.shape == (1, 32, 32)
    assert data.classes == tuple("0123456789")
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 1079, "calibration": 256, "validation": 359, "test": 359}


def test_images_are_scikit_learns_enlarged() -> None:
    part = load(DataSpec(name="digits")).parts["train"]
    pixels, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(part.targets, labels)
    images = part.images[np.arange(len(part))][..., 0] / 255
    pixels = np.asarray(pixels)
    blocks = images.reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(blocks, pixels, strict=True)]
    assert min(correlation) > 0.95
    np.testing.assert_allclose(images.mean((1, 2)), pixels.mean(1) / 16, atol=0.04)


def test_the_size_can_be_chosen() -> None:
    part = load(DataSpec(name="digits", size=8)).parts["train"]
    pixels = load_digits(return_X_y=True)[0]
    images = part.images[np.arange(len(part))].reshape(-1, 64)
    np.testing.assert_allclose(images, pixels * 255 / 16, atol=0.5)


def test_calibration_lies_within_train_and_nothing_else_is_shared(data: Dataset) -> None:
    held = {
        name: {bytes(image) for x, _ in split.batches(100) for image in x}
        for name, split in data.splits.items()
    }
    assert held["calibration"] < held["train"]
    assert not held["train"] & held["validation"]
    assert not held["train"] & held["test"]
    assert not held["validation"] & held["test"]


def test_digests_depend_on_the_seed_only(data: Dataset) -> None:
    spec = DataSpec(name="digits", validation=0.2, test=0.2)
    assert opened(spec, 0).digest == data.digest
    assert opened(spec, 1).digest != data.digest
