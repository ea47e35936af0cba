"""What a data set ships before it is cut into splits: named parts of samples and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from netzip_mlflow.data.images import Digested, Images
from netzip_mlflow.errors import InputError, Problem

__all__ = ["PARTS", "Part", "Source", "Targets", "require_sound"]

PARTS = ("train", "validation", "test")


class Targets(Protocol):
    """What the task wants of each sample. A numpy array (n, ...) is one; any other has
    `content_digests` too, as `images.Digested` does."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray, /) -> Any:
        """The targets at `indices` (int64), of the same kind."""
        ...


@dataclass(frozen=True, eq=False)
class Part:
    """Samples and targets that a data set ships under one name.

    Attributes:
        images: samples, all of one shape: uint8 images (H, W, C), say.
        targets: what the task wants of each; for classification labels, int64 (n,).
        groups: (n,) of any comparable type, tracks or patients; samples of one value stay in one
            split. Values of different parts are not compared.
    """

    images: Images
    targets: Targets
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it ships: names of its classes, where it has any, and its parts, named as in
    `PARTS`."""

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Part]


def require_sound(source: Source) -> tuple[int, ...]:
    """Check that samples, targets and groups fit together.

    Returns:
        The samples' shape, channels first.

    Raises:
        InputError: naming every part that is wrong.
    """
    problems: list[Problem] = []
    if not source.parts:
        problems.append(Problem("data", "has no parts", ", ".join(PARTS)))
    for name, part in source.parts.items():
        if name not in PARTS:
            problems.append(Problem("data", f"unknown part {name!r}", ", ".join(PARTS)))
        problems += _part_problems(name, part)
    if problems:
        raise InputError(problems, source.name)
    shapes = {name: _shape(source.name, name, part) for name, part in source.parts.items()}
    if len(set(shapes.values())) > 1:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        what = f"the parts' samples differ in shape, channels first: {given}"
        raise InputError(Problem("data", what, "one shape"), source.name)
    return next(iter(shapes.values()))


def _part_problems(name: str, part: Part) -> list[Problem]:
    where = f"part {name!r}"
    if not isinstance(part.targets, np.ndarray | Digested):
        allowed = "a numpy array, or a class with content_digests()"
        return [Problem(where, f"its targets are {type(part.targets).__name__}", allowed)]
    count = len(part)
    if not count:
        return [Problem(where, "is empty", "at least one sample")]
    problems = []
    if len(part.images) != count:
        problems.append(Problem(where, f"has {len(part.images)} samples and {count} targets"))
    if part.groups is not None and len(part.groups) != count:
        problems.append(Problem(where, f"has {len(part.groups)} groups and {count} targets"))
    return problems


def _shape(source: str, name: str, part: Part) -> tuple[int, ...]:
    sample = part.images[np.zeros(1, dtype=np.int64)]
    if sample.dtype not in (np.uint8, np.float32) or sample.ndim < 3:
        what = f"samples are {sample.dtype} of shape (n, {', '.join(map(str, sample.shape[1:]))})"
        allowed = "uint8, or float32 in [0, 1], of shape (n, H, W, C), or (n, L, C) for signals"
        raise InputError(Problem(f"part {name!r}", what, allowed), source)
    _, *sizes, channels = sample.shape
    return channels, *sizes
