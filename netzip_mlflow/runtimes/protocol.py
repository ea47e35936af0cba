"""What every runtime offers, and what a file that it has loaded does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from netzip_mlflow.runtimes.adapter import Adapter

__all__ = ["Executed", "Runtime", "Session"]


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
            NetzipError: when the runtime fails.
        """
        ...

    def bind(self, x: np.ndarray) -> Callable[[], None]:
        """The leanest call that runs the model on `x` once; what latency is measured on.

        It returns when the outputs are there: on a device that works behind the program's back,
        it waits. Raises NetzipError when the runtime fails.

        Raises:
            InputError: when `x` does not fit the file's input.
            NetzipError: when the runtime fails.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Facts for the fingerprint: `runtime`, `version`, `providers` (or devices), `threads`."""
        ...


@dataclass(frozen=True)
class Executed:
    """What a runtime executes after its own optimisation of a file.

    Attributes:
        layers: convolutions and matrix products.
        int8_layers: those in integer arithmetic.
        float_layers: names of the others.
        casts: changes of a tensor's type.
        conversions: nodes from and to integers that were not fused with a layer.
        dynamic_nodes: quantisations whose range is computed at each call.
    """

    layers: int
    int8_layers: int
    float_layers: tuple[str, ...]
    casts: int
    conversions: int
    dynamic_nodes: int


class Runtime(Protocol):
    """One way to execute a deployable; a class whose instances are made without arguments.

    `about` is one line for `netzip list runtimes`. `timed` says whether its times tell of a device:
    one whose times do not cannot score, and only its answers are compared.
    """

    about: str
    timed: bool

    def load(
        self, path: str | Path, *, threads: int = 1, adapter: Adapter | None = None
    ) -> Session:
        """Open a deployable; `adapter` says how another tool's file wants its samples.

        Raises:
            InputError: when the file is missing, corrupt or not for this runtime.
        """
        ...

    def executed(self, path: str | Path) -> Executed | None:
        """What the runtime executes of the file; None where it does not tell.

        Raises:
            InputError: as `load`.
        """
        ...
