"""What a file takes and answers, and samples brought into the form that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.runtimes.adapter import Adapter

__all__ = ["Declared", "Signature", "answers"]

DTYPES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "float64": np.float64,
    "uint8": np.uint8,
    "int8": np.int8,
}


@dataclass(frozen=True)
class Declared:
    """An input as a file declares it: numpy's name of its type; None for an axis that is open."""

    name: str
    dtype: str
    dims: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("any" if size is None else str(size) for size in self.dims)
        return f"{self.name} {self.dtype} ({sizes})"


@dataclass(frozen=True)
class Signature:
    """A file's one input, images (n, C, H, W), signals (n, C, L), ..., and its outputs' names.

    `batch` is None where it is open; `shape` is one sample's before the adapter, None for an open
    axis.
    """

    path: Path
    input: str
    outputs: tuple[str, ...]
    dtype: type[np.generic]
    batch: int | None
    shape: tuple[int | None, ...]
    adapter: Adapter | None

    @classmethod
    def of(
        cls,
        path: Path,
        inputs: Sequence[Declared],
        outputs: Sequence[str],
        adapter: Adapter | None,
    ) -> Signature:
        """Read from what a file declares.

        Raises:
            InputError: it does not take one batch of samples, or answers nothing.
        """
        if not outputs:
            raise InputError(Problem(str(path), "has no output", "one or more"))
        if len(inputs) != 1 or len(inputs[0].dims) < 3:
            what = f"inputs are {', '.join(map(str, inputs)) or 'none'}"
            allowed = "one input of 3 axes or more: batch, channels, length or height and width"
            raise InputError(Problem(str(path), what, allowed))
        (only,) = inputs
        batch, *sample = only.dims
        if adapter is not None and adapter.layout == "nhwc":
            if len(sample) != 3:
                what = f"the input has {len(only.dims)} axes"
                raise InputError(Problem(str(path), what, "4 axes with --layout nhwc"))
            sample = [sample[2], *sample[:2]]
        if only.dtype not in DTYPES:
            raise InputError(Problem(str(path), f"the input is {only.dtype}", ", ".join(DTYPES)))
        if adapter is None and only.dtype != "float32":
            hint = "say how the file wants its images: --layout, --mean, --std, --scale"
            raise InputError(Problem(str(path), f"the input is {only.dtype}", "float32", hint))
        dtype = DTYPES[only.dtype]
        return cls(path, only.name, tuple(outputs), dtype, batch, tuple(sample), adapter)

    def feed(self, x: np.ndarray) -> np.ndarray:
        """Samples, float32 (n, *shape), as the file takes them.

        Raises:
            InputError: they do not fit.
        """
        sizes = ", ".join("any" if size is None else str(size) for size in self.shape)
        axes = 1 + len(self.shape)
        if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim != axes or not len(x):
            raise self._misfit(x, f"a float32 array (n, {sizes}) with n >= 1")
        if any(size not in (None, n) for size, n in zip(self.shape, x.shape[1:], strict=True)):
            raise self._misfit(x, f"(n, {sizes})")
        if self.adapter is not None:
            return self.adapter.convert(x, self.dtype)
        return np.ascontiguousarray(x)

    def one_feed(self, x: np.ndarray) -> np.ndarray:
        """As `feed`, for one call: a fixed batch must be met exactly."""
        feed = self.feed(x)
        if self.batch not in (None, len(feed)):
            raise self._misfit(x, f"a batch of {self.batch}")
        return feed

    def in_batches(
        self, x: np.ndarray, call: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    ) -> tuple[np.ndarray, ...]:
        """What `call` answers to samples; a file of fixed batch is fed piece by piece.

        Raises:
            InputError: the samples do not fit.
        """
        feed, size = self.feed(x), self.batch
        if size is None or size == len(feed):
            return call(feed)
        pieces = []
        for start in range(0, len(feed), size):
            piece = feed[start : start + size]
            if (short := size - len(piece)) > 0:
                piece = np.concatenate([piece, np.repeat(piece[-1:], short, axis=0)])
            pieces.append(call(piece))
        return tuple(np.concatenate(parts)[: len(feed)] for parts in zip(*pieces, strict=True))

    def _misfit(self, x: Any, allowed: str) -> InputError:
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", type(x).__name__)
        what = f"input {self.input!r} is given {dtype} {shape}"
        return InputError(Problem(str(self.path), what, allowed))


def answers(values: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """A file's outputs as float32; (n, K, 1, 1), as some tools end a network, becomes (n, K)."""
    return tuple(_flat(np.asarray(value, np.float32)) for value in values)


def _flat(value: np.ndarray) -> np.ndarray:
    if value.ndim > 2 and value.size == value.shape[0] * value.shape[1]:
        return value.reshape(value.shape[:2])
    return value
