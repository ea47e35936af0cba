"""The space that the techniques' metadata make: `space: auto`."""

from __future__ import annotations

import dataclasses
from typing import Any

from netzip_mlflow import techniques
from netzip_mlflow.search.domains import AUTO
from netzip_mlflow.search.space import ONE_OF, OPTIONAL
from netzip_mlflow.techniques import Traits

__all__ = ["automatic"]

TRAINING, TEACHER = "finetune", "baseline"
Entry = dict[str, Any]


def automatic() -> list[Entry]:
    """Every sensible chain of the techniques that are known here, as a recipe would write it.

    First, perhaps, what changes the structure, then what changes weights. Then what training may
    do: nothing, fine-tuning, zeros and fine-tuning, or weights on the values that the file will
    store. Last, how the file stores and computes. Parameters vary as each technique proposes; where
    one trains and can be taught, the baseline teaches.
    """
    known = {name: _traits(name) for name in techniques.names()}
    known = {name: traits for name, traits in known.items() if traits.searched}
    structures = [_entry(n) for n, t in known.items() if t.stage == "structure"]
    zeros = [[_entry(n), _entry(TRAINING)] for n, t in known.items() if t.stage == "sparsity"]
    grids = [_entry(n) for n, t in known.items() if t.stage == "grid"]
    deploys = [_entry(n) for n, t in known.items() if t.kind == "deploy"]
    changes = [_entry(n) | {OPTIONAL: True} for n, t in known.items() if _changes_weights(t)]
    first = [{ONE_OF: structures, OPTIONAL: True}] if structures else []
    second = {ONE_OF: [_entry(TRAINING), *zeros, *grids], OPTIONAL: True}
    return [*first, *changes, second, {ONE_OF: deploys}]


def _changes_weights(traits: Traits) -> bool:
    return traits.kind == "float" and traits.stage == "weights"


def _traits(name: str) -> Traits:
    return techniques.find(name).traits


def _entry(name: str) -> Entry:
    """A technique with every parameter that it proposes to vary."""
    found: Any = techniques.find(name)
    bounds = {f.name: f.metadata["bounds"] for f in dataclasses.fields(found)}
    trains = getattr(found(), "training_epochs", 0) > 0
    taught = {"teacher": TEACHER} if trains and "teacher" in bounds else {}
    return {name: taught | {key: AUTO for key, b in bounds.items() if b.search is not None}}
