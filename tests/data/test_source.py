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


def test_signals_and_targets_of_any_shape_are_sound() -> None:
    signals = np.zeros((4, 9, 2), dtype=np.float32)
    assert require_sound(_source((), train=Part(signals, np.zeros((4, 3))))) == (2, 9)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (_source(), "has no parts"),
        (_source(dev=Part(IMAGES, LABELS)), "unknown part 'dev'"),
        (_source(train=Part(IMAGES, [0, 1, 0, 1])), "its targets are list; allowed: a numpy array"),
        (_source(train=Part(IMAGES[:0], LABELS[:0])), "is empty"),
        (_source(train=Part(IMAGES, LABELS[:3])), "has 4 samples and 3 targets"),
        (_source(train=Part(IMAGES, LABELS, LABELS[:2])), "has 2 groups and 4 targets"),
        (_source(train=Part(IMAGES / 255, LABELS)), "samples are float64"),
        (_source(train=Part(IMAGES[..., 0, 0], LABELS)), "samples are uint8 of shape"),
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
    source = _source(train=Part(IMAGES, LABELS[:3]), test=Part(IMAGES, LABELS, LABELS[1:]))
    with pytest.raises(InputError) as caught:
        require_sound(source)
    assert [problem.where for problem in caught.value.problems] == ["part 'train'", "part 'test'"]
