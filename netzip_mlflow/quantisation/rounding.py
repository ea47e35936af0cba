"""Which code each weight gets: integer grids per output channel, with the scale that fits best."""

from __future__ import annotations

import numpy as np

from netzip_mlflow.deployable.encodings import FORMS
from netzip_mlflow.errors import NetzipError, Problem

__all__ = ["REDUCED", "codes", "fit", "require_zero"]

REDUCED = 64  # largest int8 code where two products are added in 16 bits
BLOCK = 2**15  # weights at once, so that they stay in the cache
NOTHING = 2.0**-18  # of a layer's largest weight
# shares of a channel's range that are tried; beyond 1, so that kernels of few weights may leave
# the largest code unused: of nine weights in 4 bits that often fits best
SHARES = np.linspace(1.4, 0.16, 63)


def codes(weight: np.ndarray, scale: np.ndarray, form: str, high: int | None = None) -> np.ndarray:
    """The nearest code of each weight (channels, n) for a scale per channel, int8."""
    kind = FORMS[form]
    top = high or kind.high
    steps = np.rint((weight / scale[:, None] + top) / kind.step)
    return (np.clip(steps, 0, 2 * top // kind.step) * kind.step - top).astype(np.int8)


def fit(weight: np.ndarray, form: str, *, reduced: bool = False) -> np.ndarray:
    """Scale per channel, float64, for weights (channels, n).

    int8: the largest weight gets the largest code. Narrower: of 63 ranges the one with the least
    squared error, then the scale that suits its codes best. A channel of zeros gets the largest
    scale of the others, or next to nothing in forms that have no code for zero.
    """
    high = REDUCED if reduced and form == "int8" else FORMS[form].high
    largest = np.abs(weight).max(axis=1)
    fallback = (largest.max() or 1.0) * (1 if FORMS[form].has_zero else NOTHING)
    whole = np.where(largest > 0, largest, fallback) / high
    if form == "int8":
        return whole
    rows = max(1, BLOCK // weight.shape[1])
    blocks = range(0, len(weight), rows)
    return np.concatenate([_best(weight[i : i + rows], whole[i : i + rows], form) for i in blocks])


def _best(weight: np.ndarray, whole: np.ndarray, form: str) -> np.ndarray:
    best, least = whole.copy(), np.full(len(weight), np.inf)
    for share in SHARES:
        scale = whole * share
        error = np.square(codes(weight, scale, form) * scale[:, None] - weight).sum(axis=1)
        better = error < least
        best[better], least[better] = scale[better], error[better]
    found = codes(weight, best, form).astype(np.float64)
    power = np.square(found).sum(axis=1)
    suited = (found * weight).sum(axis=1) / np.where(power > 0, power, 1)
    return np.where(suited > 0, suited, best)


def require_zero(layer: str, form: str, where: str) -> None:
    """Whether the zeros of a pruned layer can stay zero; `where`: the parameter with the form.

    Raises:
        NetzipError: the form has no code for zero.
    """
    if not FORMS[form].has_zero:
        what = f"layer {layer}: its pruned weights are zero, for which {form} has no code"
        raise NetzipError(str(Problem(where, what, "8 or 4 bits, ternary")))
