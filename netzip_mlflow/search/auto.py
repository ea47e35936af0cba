"""The space that the techniques' metadata make: `space: auto`."""

from __future__ import annotations

import dataclasses
from typing import Any

from netzip_mlflow import techniques
from netzip_mlflow.search.domains import AUTO
from netzip_mlflow.search.space import ONE_OF, OPTIONAL
from netzip_mlflow.techniques import Traits

__all__ = ["automatic", "starts"]

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


def starts() -> list[list[Entry]]:
    """Chains in the automatic space to begin with: each way of storing files, alone; what did well
    somewhere, alone; changes of structure with what did well after them."""
    known = {name: _traits(name) for name in techniques.names()}
    searched = {name: traits for name, traits in known.items() if traits.searched}
    deploys = [
        [e] for n, t in searched.items() if t.kind == "deploy" for e in ({n: {}}, *_starts(n))
    ]
    stored = next(([{n: {}}] for n, t in searched.items() if t.reads_grids), [])
    tuned = [[e] for e in _starts(TRAINING)]
    grids = [[e] for n, t in searched.items() if t.stage == "grid" for e in _starts(n)]
    zeros = [[e] for n, t in searched.items() if t.stage == "sparsity" for e in _starts(n)]
    structures = [[e] for n, t in searched.items() if t.stage == "structure" for e in _starts(n)]
    second = [*grids, *(z + f for z in zeros for f in tuned)]
    both = [s + after for s in structures for after in (*tuned, *grids)]
    return [*deploys, *(chain + stored for chain in (*second, *both))]


def _starts(name: str) -> list[Entry]:
    """A technique's own proposals; taught by the baseline, as everywhere in the space."""
    taught = {k: v for k, v in _entry(name)[name].items() if v != AUTO}
    return [{name: taught | dict(given)} for given in _traits(name).starts]


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
