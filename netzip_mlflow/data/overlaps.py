"""Holding train, validation and test apart by content: no image may be in two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from netzip_mlflow.data.splits import Cut
from netzip_mlflow.errors import InputError, Problem

__all__ = ["separate"]

REMEDY = (
    "`data.duplicates: drop` drops the doubles from train, then from validation; test never changes"
)


def separate(
    cuts: Mapping[str, Cut], digests: Mapping[str, np.ndarray], policy: Literal["error", "drop"]
) -> dict[str, Cut]:
    """The cuts with no image in two of them.

    Args:
        cuts: train, validation and test.
        digests: of each image, by part.
        policy: on a double: an error, or drop it where it harms least.

    Raises:
        InputError: splits overlap and the policy is "error".
    """
    held = {split: digests[c.part][c.indices] for split, c in cuts.items()}
    if policy == "error":
        pairs = (("validation", "test"), ("train", "test"), ("train", "validation"))
        problems = [p for a, b in pairs for p in _overlap(a, b, cuts, held)]
        if problems:
            raise InputError(problems)
        return dict(cuts)
    kept = dict(cuts)
    kept["validation"] = _without(cuts["validation"], held["validation"], held["test"])
    others = np.concatenate([held["validation"], held["test"]])
    kept["train"] = _without(cuts["train"], held["train"], others)
    return kept


def _overlap(
    a: str, b: str, cuts: Mapping[str, Cut], held: Mapping[str, np.ndarray]
) -> list[Problem]:
    _, in_a, in_b = np.intersect1d(held[a], held[b], return_indices=True)
    if not len(in_a):
        return []
    first, second = (
        f"sample {cuts[split].indices[at[0]]} of part {cuts[split].part!r}"
        for split, at in ((a, in_a), (b, in_b))
    )
    count = int(np.isin(held[a], held[b]).sum())
    what = f"{a} and {b} overlap: {count} images of {a} are in {b} too; {first} is {second}"
    return [Problem("data", what, "no image in two splits", REMEDY)]


def _without(cut: Cut, held: np.ndarray, others: np.ndarray) -> Cut:
    return Cut(cut.part, cut.indices[~np.isin(held, others)])
