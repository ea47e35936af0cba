"""A data set as the rest of the software sees it: four named splits with digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from netzip_mlflow.data.images import Digested, Images, Selection, content_digests, to_input
from netzip_mlflow.data.source import Targets

__all__ = ["Dataset", "Split"]


@dataclass(frozen=True, eq=False)
class Split:
    """One named split: samples and their targets, in a fixed order.

    Attributes:
        name: train, calibration, validation or test.
        images: samples, read by index.
        targets: what the task wants of each, read by index; opaque to everybody else.
        known_digests: the digest of each image, where they are known already; shape (n,).
    """

    name: str
    images: Images
    targets: Targets
    known_digests: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, channels first: (C, H, W) for images."""
        _, *sizes, channels = self.images[np.zeros(1, dtype=np.int64)].shape
        return channels, *sizes

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, Any]]:
        """Inputs, float32 (b, C, ...) in [0, 1], and their targets, in order.

        b is `size`, in the last batch what is left.
        """
        for start in range(0, len(self), size):
            indices = np.arange(start, min(start + size, len(self)))
            yield to_input(self.images[indices]), self.targets[indices]

    def take(self, indices: np.ndarray | Sequence[int]) -> Split:
        """The samples at `indices`, in their order, as a split of the same name."""
        indices = np.asarray(indices, dtype=np.int64)
        known = None if self.known_digests is None else self.known_digests[indices]
        return Split(self.name, Selection(self.images, indices), self.targets[indices], known)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, per-sample content digests and targets; first 16 hex digits."""
        samples = self.known_digests
        if samples is None:
            samples = content_digests(self.images)
        total = hashlib.sha256(repr(self.shape).encode())
        total.update(samples.tobytes())
        total.update(_content(self.targets))
        return total.hexdigest()[:16]


def _content(targets: Targets) -> bytes:
    """What stands for targets in a digest."""
    if isinstance(targets, Digested):
        return targets.content_digests().tobytes()
    targets = np.asarray(targets)
    if targets.dtype.kind in "iu":
        return targets.astype("<i8").tobytes()
    return np.ascontiguousarray(targets.astype(targets.dtype.newbyteorder("<"))).tobytes()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Four splits; train, validation and test share no image, calibration is a part of train.

    Attributes:
        name: of the source.
        classes: their names, where the source has classes.
        shape: of one sample, channels first.
        splits: exactly train, calibration, validation and test.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    splits: Mapping[str, Split]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over classes, shape and the splits' digests; first 16 hex digits."""
        facts = {
            "classes": self.classes,
            "shape": self.shape,
            "splits": {name: self.splits[name].digest for name in sorted(self.splits)},
        }
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
