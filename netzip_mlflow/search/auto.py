"""The space that the techniques' metadata make: `space: auto`."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

from netzip_mlflow import techniques
from netzip_mlflow.search.domains import AUTO
from netzip_mlflow.search.space import ONE_OF, OPTIONAL
from netzip_mlflow.techniques import Traits

__all__ = ["automatic", "starts"]

TRAINING, TEACHER = "finetune", "baseline"
STEPS, LEAST = 32, 16  # of an epoch at least, as far as batches are no smaller
Entry = dict[str, Any]


def automatic(samples: int | None = None) -> list[Entry]:
    """Every sensible chain of the techniques that are known here, as a recipe would write it.

    First, perhaps, what changes the structure, then what changes weights. Then what training may
    do: nothing, fine-tuning, zeros and fine-tuning, or weights on the values that the file will
    store. Last, how the file stores and computes. Parameters vary as each technique proposes; where
    one trains and can be taught, the baseline teaches. With few `samples` to train on, batches are
    smaller than the technique's own.
    """
    entry = functools.partial(_entry, samples=samples)
    known = {name: _traits(name) for name in techniques.names()}
    known = {name: traits for name, traits in known.items() if traits.searched}
    structures = [entry(n) for n, t in known.items() if t.stage == "structure"]
    zeros = [[entry(n), entry(TRAINING)] for n, t in known.items() if t.stage == "sparsity"]
    grids = [entry(n) for n, t in known.items() if t.stage == "grid"]
    deploys = [entry(n) for n, t in known.items() if t.kind == "deploy"]
    changes = [entry(n) | {OPTIONAL: True} for n, t in known.items() if _changes_weights(t)]
    first = [{ONE_OF: structures, OPTIONAL: True}] if structures else []
    second = {ONE_OF: [entry(TRAINING), *zeros, *grids], OPTIONAL: True}
    return [*first, *changes, second, {ONE_OF: deploys}]


def starts(samples: int | None = None) -> list[list[Entry]]:
    """Chains in the automatic space to begin with: each way of storing files, alone; what did well
    somewhere, alone; changes of structure with what did well after them."""
    proposals = functools.partial(_starts, samples=samples)
    known = {name: _traits(name) for name in techniques.names()}
    searched = {name: traits for name, traits in known.items() if traits.searched}
    deploys = [
        [e] for n, t in searched.items() if t.kind == "deploy" for e in ({n: {}}, *proposals(n))
    ]
    stored = next(([{n: {}}] for n, t in searched.items() if t.reads_grids), [])
    tuned = [[e] for e in proposals(TRAINING)]
    grids = [[e] for n, t in searched.items() if t.stage == "grid" for e in proposals(n)]
    zeros = [[e] for n, t in searched.items() if t.stage == "sparsity" for e in proposals(n)]
    structures = [[e] for n, t in searched.items() if t.stage == "structure" for e in proposals(n)]
    second = [*grids, *(z + f for z in zeros for f in tuned)]
    both = [s + after for s in structures for after in (*tuned, *grids)]
    return [*deploys, *(chain + stored for chain in (*second, *both))]


def _starts(name: str, samples: int | None) -> list[Entry]:
    """A technique's own proposals; taught by the baseline, as everywhere in the space."""
    taught = {k: v for k, v in _entry(name, samples)[name].items() if v != AUTO}
    return [{name: taught | dict(given)} for given in _traits(name).starts]


def _changes_weights(traits: Traits) -> bool:
    return traits.kind == "float" and traits.stage == "weights"


def _traits(name: str) -> Traits:
    return techniques.find(name).traits


def _entry(name: str, samples: int | None) -> Entry:
    """A technique with every parameter that it proposes to vary."""
    found: Any = techniques.find(name)
    bounds = {f.name: f.metadata["bounds"] for f in dataclasses.fields(found)}
    trains = found().training_epochs > 0
    taught: dict[str, Any] = {"teacher": TEACHER} if trains and "teacher" in bounds else {}
    if trains and samples is not None and "batch" in bounds and samples // STEPS < found.batch:
        taught["batch"] = max(LEAST, 2 ** int(math.log2(max(samples // STEPS, 1))))
    return {name: taught | {key: AUTO for key, b in bounds.items() if b.search is not None}}
