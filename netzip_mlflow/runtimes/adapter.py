"""How another tool's file wants its samples, said once for every runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from netzip_mlflow.errors import InputError, Problem

__all__ = ["Adapter"]


@dataclass(frozen=True)
class Adapter:
    """How another tool's file wants its images: ``(x - mean) / std * scale``, then its own dtype.

    Attributes:
        layout: order of the file's axes.
        mean, std: one figure, or one per channel, on the [0, 1] scale.
        scale: 255 for a file that takes pixels from 0 to 255.

    >>> x = np.full((1, 3, 2, 2), 0.5, np.float32)
    >>> Adapter(layout="nhwc", mean=(0.5, 0.25, 0.0), scale=8).convert(x, np.uint8)[0, 0, 0]
    array([0, 2, 4], dtype=uint8)
    """

    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.layout not in ("nchw", "nhwc"):
            raise InputError(Problem("layout", f"is {self.layout!r}", "nchw, nhwc"))
        if not self.mean or not np.isfinite(self.mean).all():
            raise InputError(Problem("mean", f"is {self.mean}", "finite figures, one per channel"))
        if not self.std or not all(np.isfinite(s) and s > 0 for s in self.std):
            raise InputError(Problem("std", f"is {self.std}", "figures above 0, one per channel"))
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise InputError(Problem("scale", f"is {self.scale}", "a figure above 0"))

    def convert(self, x: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
        """float32 (n, C, ...) in [0, 1] -> the file's layout and dtype; integers are rounded and
        clipped."""
        channels = x.shape[1]
        for name, figures in (("mean", self.mean), ("std", self.std)):
            if len(figures) not in (1, channels):
                what = f"has {len(figures)} figures for {channels} channels"
                raise InputError(Problem(name, what, f"1 or {channels} figures"))
        a_channel = (-1, *[1] * (x.ndim - 2))
        mean = np.asarray(self.mean, np.float32).reshape(a_channel)
        std = np.asarray(self.std, np.float32).reshape(a_channel)
        y = (x - mean) / std * np.float32(self.scale)
        if self.layout == "nhwc":
            y = y.transpose(0, 2, 3, 1)
        if issubclass(dtype, np.integer):
            limits = np.iinfo(dtype)
            y = np.clip(np.rint(y), limits.min, limits.max)
        return np.ascontiguousarray(y, dtype)
