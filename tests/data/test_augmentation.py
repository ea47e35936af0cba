"""Flips and shifts against numpy, of images and of signals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from netzip_mlflow.data.augmentation import draw
from netzip_mlflow.recipe import Augment


def _augmented(images: np.ndarray, augment: Augment, seed: int = 0) -> np.ndarray:
    order = torch.Generator().manual_seed(seed)
    changes = draw(len(images), images.ndim - 2, augment, order)
    return changes.applied(torch.from_numpy(images)).numpy()


def _pictures(n: int = 64) -> np.ndarray:
    return np.random.default_rng(0).random((n, 2, 5, 7), dtype=np.float32) + 1


def test_a_flip_mirrors_some_images_and_leaves_the_others() -> None:
    images = _pictures()
    made = _augmented(images, Augment(flip=True))
    same = (made == images).all(axis=(1, 2, 3))
    mirrored = (made == images[..., ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 15 < mirrored.sum() < 49, "about half of 64"


@pytest.mark.parametrize("crop", [1, 3])
def test_a_crop_is_a_window_of_the_padded_image(crop: int) -> None:
    images = _pictures()
    made = _augmented(images, Augment(crop=crop))
    padded = np.pad(images, ((0, 0), (0, 0), (crop, crop), (crop, crop)))
    windows = [(row, column) for row in range(2 * crop + 1) for column in range(2 * crop + 1)]
    found = []
    for one, wide in zip(made, padded, strict=True):
        fits_ = [(r, c) for r, c in windows if np.array_equal(wide[:, r : r + 5, c : c + 7], one)]
        assert len(fits_) == 1
        found += fits_
    rows, columns = zip(*found, strict=True)
    assert set(rows) == set(columns) == set(range(2 * crop + 1)), "all shifts occur"
    assert rows != columns, "rows and columns are drawn apart"


def test_no_augmentation_is_none() -> None:
    images = _pictures()
    np.testing.assert_array_equal(_augmented(images, Augment()), images)


def test_signals_are_flipped_and_shifted_along_their_one_axis() -> None:
    signals = np.random.default_rng(1).random((32, 2, 9), dtype=np.float32) + 1
    order = torch.Generator().manual_seed(0)
    changes = draw(32, 1, Augment(flip=True, crop=2), order)
    found = changes.applied(torch.from_numpy(signals)).numpy()
    assert changes.flips is not None
    assert changes.moves is not None
    assert set(changes.moves[0].tolist()) == {-2, -1, 0, 1, 2}
    for one, made, flip, move in zip(signals, found, changes.flips, changes.moves[0], strict=True):
        turned = one[:, ::-1] if flip else one
        wide = np.pad(turned, ((0, 0), (2, 2)))
        np.testing.assert_array_equal(made, wide[:, 2 - move : 11 - move])


def test_contents_move_by_what_moves_says() -> None:
    images = np.zeros((40, 1, 9, 9), np.float32)
    images[:, 0, 4, 4] = 1
    changes = draw(40, 2, Augment(crop=3), torch.Generator().manual_seed(2))
    assert changes.moves is not None
    _, _, rows, columns = np.nonzero(changes.applied(torch.from_numpy(images)).numpy())
    np.testing.assert_array_equal(rows - 4, changes.moves[0])
    np.testing.assert_array_equal(columns - 4, changes.moves[1])
    some = changes.of(torch.tensor([3, 5]))
    assert some.moves is not None
    assert torch.equal(some.moves, changes.moves[:, [3, 5]])
