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

SAMPLES = 128  # calibration images that it is judged by


def damage(
    model: onnx.ModelProto,
    weights: Mapping[str, np.ndarray],
    images: np.ndarray,
    progress: Callable[[str, float], None] = lambda _what, _done: None,
) -> dict[str, float]:
    """What replacing one weight alone does to the outputs: mean KL(float || changed), nats.

    Args:
        model: the float graph; `weights`: by initializer, what would stand in its place.
        images: float32 (n, C, H, W) in [0, 1].
    """
    from onnx import ModelProto, numpy_helper

    before = _log_softmax(_run(model, images))
    found = {}
    for done, (name, values) in enumerate(weights.items()):
        changed = ModelProto()
        changed.CopyFrom(model)
        for tensor in changed.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
        after = _log_softmax(_run(changed, images))
        found[name] = float((np.exp(before) * (before - after)).sum(axis=1).mean())
        progress("sensitivity", (done + 1) / len(weights))
    return found


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


def _run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    (scores,) = runtimes.evaluator(model)({INPUT: images})
    return scores.astype(np.float64)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
