"""Structural edits, and their replay on a freshly built network: how a twin rebuilds.

A twin's description lists its edits; what makes them (a technique) is not asked again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow import factories
from netzip_mlflow.errors import InputError, Problem, did_you_mean

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENTRY_POINTS", "TABLE", "Edit", "foreign", "replay"]

TABLE = {
    "factorise": "netzip_mlflow.edits.low_rank:replay",
    "prune_channels": "netzip_mlflow.edits.channels:replay",
}
ENTRY_POINTS = "netzip_mlflow.techniques"


@dataclass(frozen=True)
class Edit:
    """A structural change: the technique that made it and what its `replay` needs (JSON)."""

    technique: str
    data: Mapping[str, Any]


def replay(model: nn.Module, edit: Edit) -> nn.Module:
    """The network after the same change; new weights are not set.

    Raises:
        InputError: the technique is unknown or has no `replay`; the change does not fit.
    """
    name = edit.technique
    known = TABLE | factories.installed(ENTRY_POINTS)
    target = known.get(name) or name
    if ":" not in target:
        hint = did_you_mean(name, known)
        raise InputError(Problem("", f"unknown technique {name!r}", ", ".join(known), hint))
    function = factories.import_function(target, f"technique {name!r}")
    function = function if name in TABLE else getattr(function, "replay", None)
    if function is None:
        raise InputError(f"technique {name!r} cannot replay its edit: it has no replay")
    return function(model, edit.data)


def foreign(edits: Sequence[Edit], factory: str | None, allow: Collection[str]) -> list[str]:
    """Functions that a replay, or building by `factory`, would import though nothing allows it.

    Args:
        allow: "module:function" beside those of installed entry points.
    """
    named = {edit.technique for edit in edits if ":" in edit.technique}
    named |= set() if factory is None else {factory}
    return sorted(named - {*allow, *factories.installed(ENTRY_POINTS).values()})
