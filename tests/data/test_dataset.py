"""Splits: batches in order, sub-splits, and digests that see every change."""

from __future__ import annotations

from typing import Any

import numpy as np

from netzip_mlflow.data import Dataset, Split, to_input
from netzip_mlflow.data.images import digest

RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (10, 4, 6, 3), dtype=np.uint8)
LABELS = np.arange(10) % 3


def _split(images: np.ndarray = IMAGES, targets: Any = LABELS) -> Split:
    return Split("test", images, targets)


def test_batches_cover_the_split_in_order_and_the_last_is_partial() -> None:
    batches = list(_split().batches(4))
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), to_input(IMAGES))
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), LABELS)


def test_shape_is_channels_first() -> None:
    assert _split().shape == (3, 4, 6)
    assert len(_split()) == 10


def test_take_composes() -> None:
    taken = _split().take(np.array([8, 2, 5])).take(np.array([2, 0]))
    ((x, y),) = taken.batches(5)
    np.testing.assert_array_equal(x, to_input(IMAGES[[5, 8]]))
    np.testing.assert_array_equal(y, LABELS[[5, 8]])


def test_a_digest_is_the_same_however_a_split_was_made() -> None:
    order = np.array([3, 1, 4])
    assert _split().take(order).digest == _split(IMAGES[order], LABELS[order]).digest
    assert len(_split().digest) == 16


def test_a_digest_sees_pixels_labels_order_and_shape() -> None:
    pixel = IMAGES.copy()
    pixel[9, 3, 5, 2] ^= 1
    label = LABELS.copy()
    label[0] = 2
    reshaped = IMAGES.reshape(10, 6, 4, 3)
    splits = [
        _split(),
        _split(pixel),
        _split(targets=label),
        _split(IMAGES[::-1], LABELS[::-1]),
        _split(reshaped),
    ]
    assert len({split.digest for split in splits}) == len(splits)


class _Boxes:
    """Targets that are no array."""

    def __init__(self, boxes: list[list[int]]) -> None:
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, indices: np.ndarray) -> _Boxes:
        return _Boxes([self.boxes[i] for i in indices])

    def content_digests(self) -> np.ndarray:
        return digest(bytes(each) for each in self.boxes)


def test_a_digest_sees_targets_of_any_kind() -> None:
    boxes = [[i, i + 1] for i in range(10)]
    centres = np.arange(20.0).reshape(10, 2)
    kinds = [_Boxes(boxes), _Boxes([*boxes[:9], [1]]), centres, centres + 1, centres.astype("f4")]
    digests = [_split(targets=each).digest for each in kinds]
    assert len(set(digests)) == len(kinds)
    order = np.array([3, 1])
    taken = _split(targets=kinds[0]).take(order)
    assert taken.targets.boxes == [[3, 4], [1, 2]]
    assert taken.digest == _split(IMAGES[order], _Boxes([[3, 4], [1, 2]])).digest


def test_a_data_sets_digest_sees_its_classes_and_each_split() -> None:
    def digest(classes: tuple[str, ...], **splits: Split) -> str:
        return Dataset("any", classes, (3, 4, 6), splits).digest

    few = _split().take(np.arange(5))
    digests = [
        digest(("a", "b", "c"), train=_split(), test=few),
        digest(("a", "b", "d"), train=_split(), test=few),
        digest(("a", "b", "c"), train=few, test=_split()),
    ]
    assert len(set(digests)) == 3
    assert digest(("a", "b", "c"), test=few, train=_split()) == digests[0]
