"""Which techniques there are: ours, installed ones, and any `module:attribute`."""

from __future__ import annotations

import dataclasses

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
    found = factories.import_function(target, f"technique {name!r}")
    if isinstance(found, type):
        return _sound(name, found)
    from netzip_mlflow.techniques.function import own

    return own(name, found)


def _sound(name: str, found: type) -> type[Technique]:
    wanted = [n for n in ("traits", "apply", "label") if not hasattr(found, n)]
    if not dataclasses.is_dataclass(found):
        wanted.append("@dataclass")
    else:
        wanted += [
            f"{f.name}: parameter(...)"
            for f in dataclasses.fields(found)
            if not isinstance(f.metadata.get("bounds"), Bounds)
        ]
    if wanted:
        allowed = "a frozen dataclass with traits, apply, label, and fields made by parameter(...)"
        what = f"{name!r} is no technique, it lacks {', '.join(wanted)}"
        raise InputError(Problem("", what, allowed))
    return found  # type: ignore[return-value]  (seen to have what the protocol wants)


def installed() -> dict[str, str]:
    """Techniques of other packages' entry points: name to module:attribute."""
    return factories.installed(ENTRY_POINTS)
