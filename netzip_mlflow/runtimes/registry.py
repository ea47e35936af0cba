"""Which runtimes there are: ours, installed ones, and any `module:Class`. Names only, until one is
asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from netzip_mlflow import factories
from netzip_mlflow.errors import InputError, Problem, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

    from netzip_mlflow.runtimes.protocol import Runtime

__all__ = [
    "DEFAULT",
    "PACKAGES",
    "TABLE",
    "check",
    "evaluator",
    "find",
    "installed",
    "names",
    "problems",
]

TABLE = {
    "onnxruntime": "netzip_mlflow.runtimes.onnxruntime:OnnxRuntime",
    "reference": "netzip_mlflow.runtimes.reference:Reference",
}
DEFAULT = "onnxruntime"
PACKAGES = ("onnxruntime",)  # distributions that the default needs: their versions are kept
ENTRY_POINTS = "netzip_mlflow.runtimes"
_OFFERED = ("about", "timed", "load", "executed")


def find(name: str = DEFAULT, where: str = "runtime") -> Runtime:
    """A runtime by its name, or by "module:Class".

    Args:
        where: the recipe's key or the option, for messages.

    Raises:
        InputError: there is none, its module cannot be imported, or it lacks what one needs.
    """
    target = TABLE.get(name) or installed().get(name) or (name if ":" in name else None)
    if target is None:
        listed = [*TABLE, *installed()]
        hint = did_you_mean(name, listed)
        raise InputError(
            Problem(where, f"{name!r} is unknown", f"{', '.join(listed)}, module:Class", hint)
        )
    runtime = factories.call(factories.import_function(target, where), {}, target, where)
    if missing := [each for each in _OFFERED if not hasattr(runtime, each)]:
        what = f"{name!r} is not a runtime, it lacks {', '.join(missing)}"
        raise InputError(Problem(where, what, f"a class with {', '.join(_OFFERED)}"))
    return cast("Runtime", runtime)


def names() -> dict[str, str]:
    """Every runtime by name, ours and installed ones, each with one line about it."""
    return {name: find(name).about for name in (*TABLE, *installed())}


def installed() -> dict[str, str]:
    """Runtimes of other packages' entry points: name to module:attribute."""
    return factories.installed(ENTRY_POINTS)


def problems(chosen: Sequence[str], where: str) -> list[Problem]:
    """What is wrong with a list of runtimes, of which the first scores."""
    wrong: list[Problem] = []
    if not chosen:
        wrong.append(Problem(where, "is empty", "one runtime or more; the first scores"))
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        wrong.append(Problem(where, f"{', '.join(twice)} stands there twice", "each once"))
    for position, name in enumerate(chosen):
        try:
            runtime = find(name, where)
        except InputError as error:
            wrong += error.problems
            continue
        if not position and not runtime.timed:
            what = f"{name} comes first, and its times tell nothing of a device"
            wrong.append(Problem(where, what, f"a timed one first, as {DEFAULT}, {name}"))
    return wrong


def check(raw: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a raw recipe's `measure.runtimes`; shapes are the schema's."""
    measure = raw.get("measure")
    chosen = measure.get("runtimes") if isinstance(measure, Mapping) else None
    if not isinstance(chosen, list) or not all(isinstance(name, str) for name in chosen):
        return []
    return problems(chosen, "measure.runtimes")


def evaluator(
    model: ModelProto, *, as_written: bool = False
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """A graph that is not a file: a function from its inputs to its outputs, by the default
    runtime.

    Args:
        as_written: node by node, nothing folded or fused.

    Raises:
        NetzipError: the runtime refuses the graph; the function raises it where the runtime fails.
    """
    from netzip_mlflow.runtimes.onnxruntime import in_memory

    return in_memory(model, as_written=as_written)
