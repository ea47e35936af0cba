"""From a recipe's `data` section to a data set of four splits."""

from __future__ import annotations

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

__all__ = ["open_data", "open_source"]


def open_data(spec: DataSpec, seed: int) -> Dataset:
    """Load the source, cut it, and check what is cut.

    Raises:
        InputError: the source cannot be had or is unsound; the splits cannot be cut, overlap, or
            lack a class.
    """
    problems = check({"data": spec.model_dump()})
    if problems:
        raise InputError(problems)
    return open_source(load(spec), spec, seed)


def open_source(source: Source, spec: DataSpec, seed: int) -> Dataset:
    """Cut a source that is already there into the four splits, and check them.

    Raises:
        InputError: the source is unsound; the splits cannot be cut, overlap, or lack a class.
    """
    shape = require_sound(source)
    cuts = splits.cut(source, spec, seed)
    used = {c.part for c in cuts.values()}
    digests = {part: content_digests(source.parts[part].images) for part in sorted(used)}
    cuts = separate(cuts, digests, spec.duplicates)
    labels = {split: source.parts[c.part].labels[c.indices] for split, c in cuts.items()}
    splits.require_classes(labels, source.classes)
    train = cuts["train"].indices
    ranges = splits.calibrate(labels["train"], spec.calibration, seed)
    cuts["calibration"] = Cut("train", train[ranges])
    order = ("train", "calibration", "validation", "test")
    made = {split: _split(split, source, cuts[split], digests) for split in order}
    return Dataset(source.name, source.classes, shape, made)


def _split(name: str, source: Source, cut: Cut, digests: dict[str, np.ndarray]) -> Split:
    part = source.parts[cut.part]
    images = Selection(part.images, cut.indices)
    return Split(name, images, part.labels[cut.indices], digests[cut.part][cut.indices])
