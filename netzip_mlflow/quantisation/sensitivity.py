"""Which layers suffer most from few bits, and how a budget of bits is spent on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from netzip_mlflow import runtimes
from netzip_mlflow.deployable import INPUT
from netzip_mlflow.deployable.encodings import FORMS

if TYPE_CHECKING:
    import onnx

__all__ = ["SAMPLES", "damage", "mean_bits", "ranked", "widened"]

SAMPLES = 128  # calibration samples that it is judged by


def damage(
    model: onnx.ModelProto,
    weights: Mapping[str, np.ndarray],
    samples: np.ndarray,
    differ: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray],
    progress: Callable[[str, float], None] = lambda _what, _done: None,
) -> dict[str, float]:
    """What replacing one weight alone does to the outputs: the mean over samples of `differ`.

    Args:
        model: the float graph; `weights`: by initializer, what would stand in its place.
        samples: float32 (n, C, ...) in [0, 1].
        differ: the task's, of the float graph's outputs and the changed one's.
    """
    from onnx import ModelProto, numpy_helper

    before = runtimes.evaluator(model)({INPUT: samples})
    harm = {}
    for done, (name, values) in enumerate(weights.items()):
        changed = ModelProto()
        changed.CopyFrom(model)
        for tensor in changed.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
        harm[name] = float(differ(before, runtimes.evaluator(changed)({INPUT: samples})).mean())
        progress("sensitivity", (done + 1) / len(weights))
    return harm


def widened(
    harm: Mapping[str, float],
    sizes: Mapping[str, int],
    narrow: str,
    wide: str,
    budget: float,
    others: Mapping[str, str],
) -> list[str]:
    """The layers that get the wide form: most harm per added bit first, while the mean of stored
    bits over all weights, those of `others` too, stays within the budget."""
    plan = dict.fromkeys(sizes, narrow) | dict(others)
    room = (budget - mean_bits(sizes, plan)) * sum(sizes.values())
    chosen = []
    extra = FORMS[wide].bits - FORMS[narrow].bits
    for name in sorted(harm, key=lambda n: (-harm[n] / sizes[n], n)):
        if extra * sizes[name] <= room:
            room -= extra * sizes[name]
            chosen.append(name)
    return chosen


def mean_bits(sizes: Mapping[str, int], plan: Mapping[str, str]) -> float:
    """Stored bits of one weight, over all layers."""
    total = sum(FORMS[plan[name]].bits * size for name, size in sizes.items())
    return total / sum(sizes.values())


def ranked(harm: Mapping[str, float]) -> Sequence[str]:
    """Layers, the most harmful first."""
    return sorted(harm, key=lambda n: (-harm[n], n))
