"""Samples as a sequence that is read by index, their digests, a network's input made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Digested", "Images", "Selection", "content_digests", "digest", "fit", "to_input"]

READ_AT_ONCE = 256  # images held decoded while digests are taken


class Images(Protocol):
    """Equally large samples, uint8 or float32 in [0, 1], channels last. A plain array of shape
    (n, H, W, C), or (n, L, C) for signals, is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray:
        """The samples at `indices` (int64), of shape (len(indices), ..., C).

        Raises:
            InputError: an image cannot be decoded; the message names its file.
        """
        ...


@runtime_checkable
class Digested(Protocol):
    """Images that know their digests without decoding, such as those of their files."""

    def content_digests(self) -> np.ndarray:
        """One digest per image, as made by `digest`; shape (n,)."""
        ...


@dataclass(frozen=True, eq=False)
class Selection:
    """Some of the images of another sequence, in the order of `indices` (int64)."""

    images: Images
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self.images[self.indices[indices]]


def digest(content: Iterable[bytes | memoryview]) -> np.ndarray:
    """SHA-256 of each item, its first 32 hex digits; dtype S32, shape (n,)."""
    return np.array([hashlib.sha256(item).hexdigest()[:32] for item in content], dtype="S32")


def content_digests(images: Images) -> np.ndarray:
    """One digest per image, its own or else of its pixels; dtype S32, shape (n,)."""
    if isinstance(images, Digested):
        return images.content_digests()
    chunks = [np.empty(0, dtype="S32")]
    for start in range(0, len(images), READ_AT_ONCE):
        indices = np.arange(start, min(start + READ_AT_ONCE, len(images)))
        chunks.append(digest(np.ascontiguousarray(image).data for image in images[indices]))
    return np.concatenate(chunks)


def to_input(images: np.ndarray) -> np.ndarray:
    """A network's input: (n, ..., C), uint8 or float32, to contiguous float32 (n, C, ...) in
    [0, 1]."""
    x = np.ascontiguousarray(np.moveaxis(images, -1, 1)).astype(np.float32)
    if images.dtype == np.uint8:
        x /= np.float32(255)
    return x


def fit(image: Image.Image, channels: int, size: int | None) -> np.ndarray:
    """Decode one image: to 1 or 3 channels, short side to `size` (bilinear), centre cropped.

    Returns:
        uint8 (size, size, channels), or (H, W, channels) when size is None.
    """
    from PIL.Image import Resampling

    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), Resampling.BILINEAR)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)
