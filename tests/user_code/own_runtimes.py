"""Runtimes as a user writes them: `measure.runtimes: ["own_runtimes:Plain"]`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

__all__ = ["Broken", "Plain", "Shifted"]


class PlainSession:
    """A file of float32 images, evaluated by onnx; nothing of netzip-mlflow is used."""

    def __init__(self, path: str | Path, threads: int, shift: float) -> None:
        model = onnx.load(path)
        (images,) = model.graph.input
        sizes = images.type.tensor_type.shape.dim
        self.shape = tuple(size.dim_value or None for size in sizes[1:])
        self.outputs = tuple(output.name for output in model.graph.output)
        self._input, self._threads, self._shift = images.name, threads, np.float32(shift)
        self._evaluator = ReferenceEvaluator(model)

    def run(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        values = self._evaluator.run(None, {self._input: x})
        return tuple(np.asarray(value, np.float32) + self._shift for value in values)

    def bind(self, x: np.ndarray) -> Callable[[], None]:
        return lambda: self.run(x) and None

    def describe(self) -> dict[str, Any]:
        return {"runtime": "plain", "version": "7", "providers": [], "threads": self._threads}


class Plain:
    """It does not tell what it executes."""

    about = "onnx, by hand"
    timed = True
    shift = 0.0

    def load(self, path: str | Path, *, threads: int = 1, adapter: object = None) -> PlainSession:
        return PlainSession(path, threads, self.shift)

    def executed(self, path: str | Path) -> None:
        return None


class Shifted(Plain):
    """One whose answers are off."""

    shift = 0.25


class Broken(Plain):
    """One that fails in its own way."""

    def load(self, path: str | Path, *, threads: int = 1, adapter: object = None) -> PlainSession:
        raise KeyError("the lamp is out")
