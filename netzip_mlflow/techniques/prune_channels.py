"""Structured pruning: whole channels removed, so that the network has fewer operations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from netzip_mlflow.errors import NetzipError, Problem
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import Range, parameter, unread
from netzip_mlflow.techniques.patterns import chosen
from netzip_mlflow.techniques.protocol import SizeBasis, Traits
from netzip_mlflow.techniques.trained import Taught

if TYPE_CHECKING:
    import torch
    from torch import nn

    from netzip_mlflow.edits.channels import Group, Removal
    from netzip_mlflow.twin import Twin

__all__ = ["PruneChannels"]

FINEST = 1e-4  # how finely the ratio is searched that gives a share of the MACs
SHOWN = 12  # names of layers in a message


@dataclass(frozen=True)
class PruneChannels(Taught):
    """Removes the `ratio` of channels with the least importance, and all that hangs on them.

    `importance` is explained, with its sources, in `netzip_mlflow.techniques.importance`; `scope:
    global` ranks all layers together, taylor as it is, the others divided by their layer's mean.
    """

    name: ClassVar[str] = "prune_channels"
    traits: ClassVar[Traits] = Traits(
        family="pruning",
        kind="float",
        stage="structure",
        summary="whole channels removed, found by dependency: fewer operations",
        needs_calibration=True,
        needs_training=True,
        starts=({"ratio": 0.2, "importance": "l2", "scope": "global", "reconstruct": 512},),
    )
    ratio: float = parameter(
        0.3, "share of channels removed", low=0.0, high=0.95, search=Range(0.05, 0.6)
    )
    macs: float | None = parameter(
        None,
        "in place of ratio: share of the baseline's MACs that stays",
        kind=float,
        low=0.01,
        high=1.0,
    )
    importance: str = parameter(
        "l1",
        "what ranks channels",
        choices=("l1", "l2", "taylor", "random"),
        search=("l1", "l2", "taylor"),
    )
    scope: str = parameter(
        "uniform",
        "the same share of every layer, or all layers ranked together",
        choices=("uniform", "global"),
        search=("uniform", "global"),
    )
    round_to: int = parameter(4, "channels that stay are a multiple of it", low=1, high=64)
    keep: str | None = parameter(
        None, "layers whose outputs stay: names or patterns such as layer1.*, by comma", kind=str
    )
    steps: int = parameter(1, "prune in so many steps", low=1, high=100)
    reconstruct: int = parameter(
        0,
        "images on which what is left is fitted to the whole network's outputs, layer by layer",
        low=0,
        high=1_000_000,
        search=(0, 512),
    )
    _: KW_ONLY
    epochs: int = parameter(0, "epochs of fine-tuning after each step", low=0, high=1000)

    @property
    def training_epochs(self) -> int:
        return self.steps * self.epochs

    @property
    def size_depends_on(self) -> SizeBasis:
        """Ranked together, layers keep what their weights are worth."""
        if self.scope == "uniform":
            return "parameters"
        learned = self.epochs or self.reconstruct
        return "training" if self.steps > 1 and learned else "weights"

    def label(self) -> str:
        amount = f"{self.ratio:g}" if self.macs is None else f"macs {self.macs:g}"
        return f"prune_channels({amount})"

    @classmethod
    def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
        """What is wrong with a recipe's parameters."""
        found = super().problems(given, where)
        if "ratio" in given and given.get("macs") is not None:
            found.append(Problem(f"{where}.macs", "given beside ratio", "one of the two"))
        if not found and not given.get("epochs", cls.epochs):
            keys = [field.name for field in dataclasses.fields(Taught) if field.name != "epochs"]
            why = "and epochs: 0 trains nothing"
            found += unread(given, keys, where, why, "epochs: 1 or more, or a finetune after it")
        return found

    def apply(self, twin: Twin, context: Context) -> Twin:
        """A twin with fewer channels, and the edit that rebuilds it.

        Raises:
            NetzipError: weights are masked or on a grid; the network cannot be traced; `keep`
                matches nothing; the ratio would empty a layer or removes nothing; the MACs cannot
                be reached; a teacher is wanted and there is none.
        """
        from netzip_mlflow import training
        from netzip_mlflow.twin import Edit

        for what, held in (("masks", twin.masks), ("grids", twin.grids)):
            if held:
                raise NetzipError(
                    f"prune_channels: the twin has {what} ({', '.join(sorted(held)[:SHOWN])}) that"
                    " would no longer fit; allowed: prune_channels before what makes them"
                )
        self.check_teacher(twin, context)
        if self.macs is None and self.ratio == 0:
            return twin.copy().replace(chain=(*twin.chain, self.label()))
        pruned = twin.copy()
        done: list[list[Removal]] = []
        with training.seeded(context.seed, context.threads):
            pruning = _Pruning(self, pruned, context)
            for step in range(1, self.steps + 1):
                whole = pruned.copy()
                done.append(pruning.step(pruned, step / self.steps))
                if self.reconstruct and done[-1] and not context.untrained:
                    self._reconstruct(pruned, whole, done[-1], context)
                if self.epochs and any(done):
                    pruned = self._trained(pruned, context, step)
        edits = twin.edits
        if any(done):
            data = {
                "input": [*twin.input.shape],
                "steps": [[[*removal] for removal in step] for step in done],
                "unproved": [*pruning.unproved],
            }
            edits = (*edits, Edit("prune_channels", data))
        return pruned.replace(edits=edits, chain=(*twin.chain, self.label()))

    def _reconstruct(
        self, pruned: Twin, whole: Twin, removals: Sequence[Removal], context: Context
    ) -> None:
        import numpy as np

        from netzip_mlflow.techniques import reconstruction

        count = min(self.reconstruct, len(context.train))
        chosen = np.random.default_rng(context.seed).permutation(len(context.train))[:count]
        stay = reconstruction.survivors(whole.model, whole.input.shape, removals)
        reconstruction.fit(pruned, whole, stay, context.train.take(np.sort(chosen)), context)

    def _trained(self, twin: Twin, context: Context, step: int) -> Twin:
        before = (step - 1) * self.epochs
        shown = dataclasses.replace(
            context,
            log=lambda key, value, epoch: context.log(key, value, before + epoch),
            progress=lambda what, done: context.progress(
                f"step {step}/{self.steps}, {what}", (step - 1 + done) / self.steps
            ),
        )
        return self.train(twin, shown)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """A group, the importance of its units (units,), and how many it had at first."""

    group: Group
    scores: torch.Tensor
    first: int
    multiple: int

    def rounded(self, wanted: float) -> int:
        """Units that stay where so many are wanted: a multiple, at least one of it."""
        if wanted >= self.group.units:
            return self.group.units
        nearest = self.multiple * max(1, math.floor(wanted / self.multiple + 0.5))
        return min(nearest, self.group.units)

    def removal(self, stay: int) -> Removal:
        worst_first = self.scores.argsort(stable=True).tolist()
        return self.group.removal(sorted(worst_first[: self.group.units - stay]))


class _Pruning:
    """One application of the technique: what stays the same over its steps."""

    def __init__(self, technique: PruneChannels, twin: Twin, context: Context) -> None:
        self.technique, self.context = technique, context
        self.shape = twin.input.shape
        self.first: dict[str, int] = {}
        self.unproved: tuple[str, ...] = ()
        if technique.macs is not None:
            self.whole = _macs((context.teacher or twin).model, self.shape)
            self.start = _macs(twin.model, self.shape) / self.whole

    def step(self, twin: Twin, part: float) -> list[Removal]:
        """Prune the twin's model in place, up to a part of what is wanted in the end."""
        from netzip_mlflow.edits.channels import remove

        ranked = self._ranked(twin)
        if self.technique.macs is None:
            removals = self._at(ranked, part * self.technique.ratio)
        else:
            target = self.start + part * (self.technique.macs - self.start)
            removals = self._search(twin.model, ranked, target)
        if removals:
            remove(twin.model, self.shape, removals)
        return removals

    def _ranked(self, twin: Twin) -> list[_Ranked]:
        from netzip_mlflow.edits.channels import find_groups
        from netzip_mlflow.techniques.importance import importances

        kept = _kept(twin.model, self.technique.keep)
        found = find_groups(twin.model, self.shape, kept)
        self.unproved = found.unproved
        if not found.groups:
            left = ", ".join(found.unproved[:SHOWN]) or "none"
            raise NetzipError(
                "prune_channels: the network has no channels that can be removed; layers whose"
                f" channels are used in a way that cannot be followed: {left}"
            )
        scores = importances(twin, found.groups, self.technique.importance, self.context)
        if self.technique.scope == "global" and self.technique.importance != "taylor":
            # sums of weights of different layers do not compare, shares of the loss do
            scores = [s / s.mean().clamp_min(1e-30) for s in scores]
        ranked = []
        for group, score in zip(found.groups, scores, strict=True):
            first = self.first.setdefault(group.layer, group.units)
            multiple = self.technique.round_to // math.gcd(self.technique.round_to, group.blocks)
            ranked.append(_Ranked(group, score, first, multiple))
        return ranked

    def _at(self, ranked: list[_Ranked], ratio: float) -> list[Removal]:
        for each in ranked:
            if self.technique.scope == "uniform" and each.first * (1 - ratio) < 0.5:
                most = 1 - 0.5 / each.first
                raise NetzipError(
                    f"prune_channels: ratio: {self.technique.ratio:g} would leave layer"
                    f" {each.group.layer!r} without channels: it has {each.group.channels};"
                    f" allowed: at most {most:.3g}, or keep: {each.group.layer}"
                )
        removals = self._removals(ranked, ratio)
        if not removals and ratio == self.technique.ratio and not self._pruned(ranked):
            widest = max(ranked, key=lambda r: r.group.channels).group
            raise NetzipError(
                f"prune_channels: ratio: {ratio:g} removes nothing: the widest layer that can be"
                f" pruned, {widest.layer!r}, has {widest.channels} channels, and round_to is"
                f" {self.technique.round_to}; raise ratio, or lower round_to"
            )
        return removals

    @staticmethod
    def _pruned(ranked: list[_Ranked]) -> bool:
        return any(each.group.units < each.first for each in ranked)

    def _removals(self, ranked: list[_Ranked], ratio: float) -> list[Removal]:
        """What goes at a ratio of the channels that there were at first; no layer is emptied."""
        if self.technique.scope == "uniform":
            wanted: list[float] = [each.first * (1 - ratio) for each in ranked]
        else:
            wanted = _stay_globally(ranked, ratio)
        stay = [each.rounded(count) for each, count in zip(ranked, wanted, strict=True)]
        return [
            each.removal(count)
            for each, count in zip(ranked, stay, strict=True)
            if count < each.group.units
        ]

    def _search(self, model: nn.Module, ranked: list[_Ranked], target: float) -> list[Removal]:
        """The least ratio at which no more than the target of the MACs stays."""
        known: dict[str, float] = {}

        def share(ratio: float) -> float:
            removals = self._removals(ranked, ratio)
            if (key := repr(removals)) not in known:
                known[key] = _macs(model, self.shape, removals) / self.whole
            return known[key]

        if share(0.0) <= target:
            return []
        if (least := share(1.0)) > target:
            raise NetzipError(
                f"prune_channels: macs: {self.technique.macs:g} of the baseline's cannot be"
                f" reached: with the fewest channels that round_to: {self.technique.round_to} and"
                f" keep: {self.technique.keep or 'null'} allow, {least:.3g} stays"
            )
        low, high = 0.0, 1.0
        while high - low > FINEST:
            middle = (low + high) / 2
            low, high = (low, middle) if share(middle) <= target else (middle, high)
        return self._removals(ranked, high)


def _stay_globally(ranked: list[_Ranked], ratio: float) -> list[float]:
    """Units that stay of each group when all units are ranked together."""
    import torch

    first, now = sum(r.first for r in ranked), sum(r.group.units for r in ranked)
    gone = max(0, round(first * ratio) - (first - now))
    owners = torch.cat([torch.full((r.group.units,), i) for i, r in enumerate(ranked)])
    order = torch.cat([r.scores for r in ranked]).argsort(stable=True)
    lost = torch.bincount(owners[order[:gone]], minlength=len(ranked)).tolist()
    return [r.group.units - n for r, n in zip(ranked, lost, strict=True)]


def _macs(model: nn.Module, shape: Sequence[int], removals: Sequence[Removal] = ()) -> int:
    """MACs of convolutions and linear layers for one sample, without some channels."""
    from netzip_mlflow.edits.channels import remove
    from netzip_mlflow.metrics import thop

    if removals:
        import copy

        model = copy.deepcopy(model)
        remove(model, shape, removals)
    return thop.count(model, tuple(shape)).layers


def _kept(model: nn.Module, keep: str | None) -> list[nn.Module]:
    modules = {name: module for name, module in model.named_modules() if name}
    return [modules[name] for name in chosen(keep, [*modules], "prune_channels: keep")]
