"""What a data set ships before it is cut into splits: named parts of images and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from netzip_mlflow.data.images import Images
from netzip_mlflow.errors import InputError, Problem

__all__ = ["PARTS", "Part", "Source", "require_sound"]

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Part:
    """Images and labels that a data set ships under one name.

    Attributes:
        images: uint8 images, all of one shape (H, W, C).
        labels: int64 (n,), each in 0 .. number of classes - 1.
        groups: (n,) of any comparable type, tracks or patients; samples of one value stay in one
            split. Values of different parts are not compared.
    """

    images: Images
    labels: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it ships: its classes by name and its parts, named as in `PARTS`."""

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Part]


def require_sound(source: Source) -> tuple[int, int, int]:
    """Check that images, labels and classes fit together.

    Returns:
        The images' shape as (C, H, W).

    Raises:
        InputError: naming every part that is wrong.
    """
    problems: list[Problem] = []
    if len(source.classes) < 2:
        problems.append(Problem("data", f"has {len(source.classes)} classes", "2 or more"))
    if not source.parts:
        problems.append(Problem("data", "has no parts", ", ".join(PARTS)))
    for name, part in source.parts.items():
        if name not in PARTS:
            problems.append(Problem("data", f"unknown part {name!r}", ", ".join(PARTS)))
        problems += _part_problems(name, part, len(source.classes))
    if problems:
        raise InputError(problems, source.name)
    shapes = {name: _shape(source.name, name, part) for name, part in source.parts.items()}
    if len(set(shapes.values())) > 1:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        what = f"the parts' images differ in shape (C, H, W): {given}"
        raise InputError(Problem("data", what, "one shape"), source.name)
    return next(iter(shapes.values()))


def _part_problems(name: str, part: Part, classes: int) -> list[Problem]:
    where = f"part {name!r}"
    labels = part.labels
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        given = getattr(labels, "dtype", type(labels).__name__), getattr(labels, "shape", "")
        return [Problem(where, f"labels are {given[0]} {given[1]}", "int64 of shape (n,)")]
    if not len(labels):
        return [Problem(where, "is empty", "at least one sample")]
    problems = []
    if len(part.images) != len(labels):
        problems.append(Problem(where, f"has {len(part.images)} images and {len(labels)} labels"))
    if part.groups is not None and len(part.groups) != len(labels):
        problems.append(Problem(where, f"has {len(part.groups)} groups and {len(labels)} labels"))
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        first = outside[0]
        what = f"{len(outside)} labels outside the classes, the first is {labels[first]} at {first}"
        problems.append(Problem(where, what, f"0 to {classes - 1}"))
    return problems


def _shape(source: str, name: str, part: Part) -> tuple[int, int, int]:
    sample = part.images[np.zeros(1, dtype=np.int64)]
    if sample.dtype != np.uint8 or sample.ndim != 4:
        what = f"images are {sample.dtype} of shape (n, {', '.join(map(str, sample.shape[1:]))})"
        problem = Problem(f"part {name!r}", what, "uint8 of shape (n, H, W, C)")
        raise InputError(problem, source)
    _, height, width, channels = sample.shape
    return channels, height, width
