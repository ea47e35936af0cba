"""Digests and a network's input, against torchvision and hashlib."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.functional import to_tensor

from netzip_mlflow.data import to_input
from netzip_mlflow.data.images import Selection, content_digests, fit


def _images(n: int, height: int = 5, width: int = 7, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def test_to_input_is_what_torchvision_makes_of_an_image() -> None:
    images = _images(4)
    x = to_input(images)
    wanted = np.stack([to_tensor(Image.fromarray(image)).numpy() for image in images])
    np.testing.assert_array_equal(x, wanted)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous


def test_content_digests_are_of_the_pixels() -> None:
    images = _images(3)
    wanted = [hashlib.sha256(image.tobytes()).hexdigest()[:32].encode() for image in images]
    assert content_digests(images).tolist() == wanted


def test_content_digests_go_on_beyond_one_chunk_and_keep_their_order() -> None:
    images = _images(600, 2, 2, 1)
    picked = Selection(images, np.arange(599, -1, -1))
    np.testing.assert_array_equal(content_digests(picked)[::-1], content_digests(images))


@given(width=st.integers(1, 40), height=st.integers(1, 40), size=st.integers(1, 40))
def test_fit_always_gives_a_square(width: int, height: int, size: int) -> None:
    assert fit(Image.new("RGB", (width, height)), 3, size).shape == (size, size, 3)


def test_fit_keeps_the_centre() -> None:
    image = Image.new("L", (30, 10), 0)
    image.paste(255, (10, 0, 20, 10))
    assert (fit(image, 1, 10) == 255).all()


@pytest.mark.parametrize(("channels", "shape"), [(1, (8, 9, 1)), (3, (8, 9, 3))])
def test_fit_without_a_size_only_sets_the_channels(channels: int, shape: tuple[int, ...]) -> None:
    assert fit(Image.new("RGB", (9, 8)), channels, None).shape == shape
