"""The runtimes that execute a deployable, behind one small protocol: load, run, describe.

A runtime is a module with the functions of `Runtime`; a new one is one file and one line in
`RUNTIMES`. Nothing is imported until `open_runtime` is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from netzip_mlflow.errors import InputError, Problem, did_you_mean

__all__ = ["RUNTIMES", "Runtime", "Session", "open_runtime"]

RUNTIMES: dict[str, str] = {
    "onnxruntime": "netzip_mlflow.runtimes.onnxruntime",
}


class Session(Protocol):
    """One deployable, loaded and ready to run.

    `shape` is one sample's, (C, H, W) for images, None for an open axis; `outputs` are the names
    of what `run` answers, in the file's order.
    """

    shape: tuple[int | None, ...]
    outputs: tuple[str, ...]

    def run(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """The file's outputs, float32 (n, ...) each, on samples `x`, float32 (n, *shape); images
        are in [0, 1].

        Raises:
            InputError: when `x` does not fit the file's input.
        """
        ...

    def bind(self, x: np.ndarray) -> Callable[[], None]:
        """The leanest call that runs the model on `x` once; what latency is measured on.

        Raises:
            InputError: when `x` does not fit the file's input.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for the fingerprint: runtime, version, providers, threads."""
        ...


class Runtime(Protocol):
    """What every module in `RUNTIMES` offers."""

    def load(self, path: str | Path, *, threads: int = 1, adapter: Any = None) -> Session:
        """Open a deployable; `adapter` says how another tool's file wants its images.

        Raises:
            InputError: when the file is missing, corrupt or not for this runtime.
        """
        ...

    def executed(self, path: str | Path) -> dict[str, Any]:
        """What the runtime really executes after its own optimisation of the file."""
        ...


def open_runtime(name: str) -> Runtime:
    """The runtime called `name`.

    Raises:
        InputError: when there is no such runtime.
    """
    if name not in RUNTIMES:
        hint = did_you_mean(name, RUNTIMES)
        raise InputError(Problem("runtime", f"{name!r} is unknown", ", ".join(RUNTIMES), hint))
    return cast("Runtime", importlib.import_module(RUNTIMES[name]))
