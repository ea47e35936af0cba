"""Which techniques there are: ours, installed ones, and any `module:attribute`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from netzip_mlflow import factories
from netzip_mlflow.edits import ENTRY_POINTS
from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.techniques.parameters import Bounds
from netzip_mlflow.techniques.protocol import Technique

__all__ = ["TABLE", "find", "installed", "names"]

TABLE = {
    "ptq": "netzip_mlflow.techniques.ptq:PTQ",
    "dynamic_int8": "netzip_mlflow.techniques.dynamic_int8:DynamicInt8",
    "half": "netzip_mlflow.techniques.half:Half",
    "prune_l1": "netzip_mlflow.techniques.prune_l1:PruneL1",
    "prune_random": "netzip_mlflow.techniques.prune_random:PruneRandom",
    "factorise": "netzip_mlflow.techniques.factorise:Factorise",
    "distil": "netzip_mlflow.techniques.distil:Distil",
    "prune_channels": "netzip_mlflow.techniques.prune_channels:PruneChannels",
    "finetune": "netzip_mlflow.techniques.finetune:Finetune",
    "qat": "netzip_mlflow.techniques.qat:QAT",
    "binarise": "netzip_mlflow.techniques.binarise:Binarise",
    "share_kernels": "netzip_mlflow.techniques.share_kernels:ShareKernels",
}


def names() -> dict[str, str]:
    """Every known technique, ours and installed ones: name to one-line description."""
    return {name: find(name).traits.summary for name in (*TABLE, *installed())}


def find(name: str) -> type[Technique]:
    """The class of a technique.

    Raises:
        InputError: unknown, or its module cannot be imported.
    """
    target = TABLE.get(name) or installed().get(name) or (name if ":" in name else None)
    if target is None:
        known = [*TABLE, *installed()]
        hint = did_you_mean(name, known)
        allowed = f"{', '.join(known)}, or module:function"
        raise InputError(Problem("", f"unknown technique {name!r}", allowed, hint))
    value = factories.import_function(target, f"technique {name!r}")
    if not isinstance(value, type):
        from netzip_mlflow.techniques.function import technique_of

        return technique_of(name, value)
    if missing := [] if name in TABLE else list(_missing(value)):
        allowed = (
            "a frozen dataclass that subclasses netzip_mlflow.Technique, with name, traits, apply, "
            "and fields made by parameter(...)"
        )
        what = f"{name!r} is not a technique, it lacks {', '.join(missing)}"
        raise InputError(Problem("", what, allowed))
    return value


def _missing(value: type) -> Iterator[str]:
    if not issubclass(value, Technique):
        yield "the base class Technique"
    yield from (part for part in ("name", "traits", "apply") if not hasattr(value, part))
    if not dataclasses.is_dataclass(value):
        yield "@dataclass"
        return
    for each in dataclasses.fields(value):
        if not isinstance(each.metadata.get("bounds"), Bounds):
            yield f"{each.name}: parameter(...)"


def installed() -> dict[str, str]:
    """Techniques of other packages' entry points: name to module:attribute."""
    return factories.installed(ENTRY_POINTS)
