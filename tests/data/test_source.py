"""A source's parts must fit together, or one message says what does not."""

from __future__ import annotations

import numpy as np
import pytest

from netzip_mlflow.data.source import Part, Source, require_sound
from netzip_mlflow.errors import InputError

IMAGES = np.zeros((4, 6, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1])


def _source(classes: tuple[str, ...] = ("a", "b"), **parts: Part) -> Source:
    return Source("mine", classes, parts)


def test_a_sound_source_gives_its_shape() -> None:
    assert require_sound(_source(train=Part(IMAGES, LABELS))) == (3, 6, 5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (_source(("a",), train=Part(IMAGES, LABELS * 0)), "has 1 classes"),
        (_source(), "has no parts"),
        (_source(dev=Part(IMAGES, LABELS)), "unknown part 'dev'"),
        (_source(train=Part(IMAGES, LABELS.astype(float))), "labels are float64"),
        (_source(train=Part(IMAGES[:0], LABELS[:0])), "is empty"),
        (_source(train=Part(IMAGES, LABELS[:3])), "has 4 images and 3 labels"),
        (_source(train=Part(IMAGES, LABELS, LABELS[:2])), "has 2 groups and 4 labels"),
        (_source(train=Part(IMAGES, LABELS + 1)), "2 labels outside the classes, the first is 2"),
        (_source(train=Part(IMAGES, LABELS - 1)), "the first is -1 at 0"),
        (_source(train=Part(IMAGES / 255, LABELS)), "images are float64"),
        (_source(train=Part(IMAGES[..., 0], LABELS)), "images are uint8 of shape"),
        (
            _source(train=Part(IMAGES, LABELS), test=Part(IMAGES[:, :5], LABELS)),
            r"train \(3, 6, 5\), test \(3, 5, 5\)",
        ),
    ],
)
def test_an_unsound_source_is_refused(source: Source, message: str) -> None:
    with pytest.raises(InputError, match=message):
        require_sound(source)


def test_all_faulty_parts_are_named_at_once() -> None:
    source = _source(train=Part(IMAGES, LABELS[:3]), test=Part(IMAGES, LABELS + 7))
    with pytest.raises(InputError) as caught:
        require_sound(source)
    assert [problem.where for problem in caught.value.problems] == ["part 'train'", "part 'test'"]
