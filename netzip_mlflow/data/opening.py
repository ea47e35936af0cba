"""From a recipe's `data` section to a data set of four splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netzip_mlflow.data import splits
from netzip_mlflow.data.catalogue import check, load
from netzip_mlflow.data.dataset import Dataset, Split
from netzip_mlflow.data.images import Selection, content_digests
from netzip_mlflow.data.overlaps import separate
from netzip_mlflow.data.source import Source, require_sound
from netzip_mlflow.data.splits import Cut
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import DataSpec

__all__ = ["load_source", "open_source"]


def load_source(spec: DataSpec) -> Source:
    """The source that a recipe's `data` asks for.

    Raises:
        InputError: it cannot be had.
    """
    problems = check({"data": spec.model_dump()})
    if problems:
        raise InputError(problems)
    return load(spec)


def open_source(
    source: Source, spec: DataSpec, seed: int, strata: Callable[[Any], np.ndarray] | None = None
) -> Dataset:
    """Cut a source into the four splits, and hold them apart.

    Args:
        strata: the stratum of each of some targets, int64 (n,) from 0 on: shares that are drawn
            keep their proportions. By default all samples are alike.

    Raises:
        InputError: the source is unsound; the splits cannot be cut, or overlap.
    """
    shape = require_sound(source)
    alike = strata or (lambda targets: np.zeros(len(targets), dtype=np.int64))
    stratum = {name: alike(part.targets) for name, part in source.parts.items()}
    cuts = splits.cut(source, spec, seed, stratum)
    used = {c.part for c in cuts.values()}
    digests = {part: content_digests(source.parts[part].images) for part in sorted(used)}
    cuts = separate(cuts, digests, spec.duplicates)
    train = cuts["train"].indices
    ranges = splits.calibrate(stratum["train"][train], spec.calibration, seed)
    cuts["calibration"] = Cut("train", train[ranges])
    order = ("train", "calibration", "validation", "test")
    made = {split: _split(split, source, cuts[split], digests) for split in order}
    return Dataset(source.name, source.classes, shape, made)


def _split(name: str, source: Source, cut: Cut, digests: dict[str, np.ndarray]) -> Split:
    part = source.parts[cut.part]
    images = Selection(part.images, cut.indices)
    return Split(name, images, part.targets[cut.indices], digests[cut.part][cut.indices])
