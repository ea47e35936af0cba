"""Which code each weight gets: integer grids per output channel, with the scale that fits best."""

from __future__ import annotations

import numpy as np

from netzip_mlflow.deployable.forms import FORMS

__all__ = ["REDUCED", "codes", "fit"]

REDUCED = 64  # largest int8 code where two products are added in 16 bits
NOTHING = 2.0**-18  # of a layer's largest weight
SHRINK = np.linspace(1.0, 0.15, 86)  # shares of a channel's largest weight that are tried


def codes(weight: np.ndarray, scale: np.ndarray, form: str, high: int | None = None) -> np.ndarray:
    """The nearest code of each weight (channels, n) for a scale per channel, int8."""
    kind = FORMS[form]
    top = high or kind.high
    steps = np.rint((weight / scale[:, None] + top) / kind.step)
    return (np.clip(steps, 0, 2 * top // kind.step) * kind.step - top).astype(np.int8)


def fit(weight: np.ndarray, form: str, *, reduced: bool = False) -> np.ndarray:
    """Scale per channel, float64, for weights (channels, n).

    int8: the largest weight gets the largest code. Narrower: of 86 clippings of the range, the one
    with the least squared error. A channel of zeros gets the largest scale of the others, or next
    to nothing in forms that have no code for zero.
    """
    high = REDUCED if reduced and form == "int8" else FORMS[form].high
    largest = np.abs(weight).max(axis=1)
    fallback = (largest.max() or 1.0) * (1 if FORMS[form].has_zero else NOTHING)
    whole = np.where(largest > 0, largest, fallback) / high
    if form == "int8":
        return whole
    best, least = whole.copy(), np.full(len(weight), np.inf)
    for share in SHRINK:
        scale = whole * share
        error = np.square(codes(weight, scale, form) * scale[:, None] - weight).sum(axis=1)
        better = error < least
        best[better], least[better] = scale[better], error[better]
    return best
