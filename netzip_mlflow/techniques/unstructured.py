"""Unstructured pruning: which weights go, over how many steps; kept as masks on the twin."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import NetzipError, Problem
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import Range, parameter, unread
from netzip_mlflow.techniques.patterns import chosen
from netzip_mlflow.techniques.protocol import SizeBasis
from netzip_mlflow.techniques.trained import Taught

if TYPE_CHECKING:
    import torch
    from torch import nn

    from netzip_mlflow.twin import Twin

__all__ = ["Unstructured", "prunable", "schedule"]


@dataclass(frozen=True)
class Unstructured(Taught):
    """What `prune_l1` and `prune_random` share: all but the order in which weights go.

    In one step, or gradually by a cubic schedule with training between steps, masks kept (Zhu and
    Gupta, arXiv 1710.01878, equation 1). Zeros that an earlier pruning has masked count in.
    """

    ratio: float = parameter(
        0.3, "share of weights set to zero", low=0.0, high=0.99, search=Range(0.1, 0.9)
    )
    scope: str = parameter(
        "global",
        "the ratio holds over all layers together, or in each layer",
        choices=("global", "layer"),
        search=("global", "layer"),
    )
    keep: str | None = parameter(
        None, "layers left alone: names or patterns, separated by commas", kind=str
    )
    steps: int = parameter(1, "prunings, by a cubic schedule", low=1, high=1000)
    _: KW_ONLY
    epochs: int = parameter(
        1, "for steps > 1: training between two steps, in epochs", low=1, high=1000
    )

    @classmethod
    def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
        """What is wrong with a recipe's parameters."""
        found = super().problems(given, where)
        if not found and given.get("steps", cls.steps) == 1:
            keys = [field.name for field in dataclasses.fields(Taught)]
            why = "and steps: 1 trains nothing"
            found += unread(given, keys, where, why, "steps: 2 or more, or a finetune after it")
        return found

    @property
    def training_epochs(self) -> int:
        """Passes over the training split, all steps together; 0 in one shot."""
        return (self.steps - 1) * self.epochs

    @property
    def size_depends_on(self) -> SizeBasis:
        """The file packs zeros: those of the masks, which the weights before decide in one shot."""
        return "zeros" if self.steps == 1 else "training"

    def label(self) -> str:
        parts = [f"{self.ratio:g}"]
        parts += ["per layer"] if self.scope == "layer" else []
        parts += [f"{self.steps} steps"] if self.steps > 1 else []
        return f"{self.name}({', '.join(parts)})"

    @abc.abstractmethod
    def _scores(self, weights: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
        """Non-negative scores in the shapes of the weights; the least go first."""

    def apply(self, twin: Twin, context: Context) -> Twin:
        """A twin with zeros and the masks that keep them.

        Raises:
            NetzipError: the network has no layer to prune, `keep` names none of its layers, or a
                layer would lose its last weight; between steps, as `finetune` does.
        """
        if self.ratio == 0:
            return twin.copy().replace(chain=(*twin.chain, self.label()))
        names = self._chosen(twin)
        start = [_zeros(twin.masks.get(_key(name)), w) for name, w in _weights(twin, names)]
        made = twin
        for step in range(1, self.steps + 1):
            if step > 1:
                made = self._trained(made, context, step - 1)
            made = self._pruned(made, names, start, step, context.seed)
        return made.replace(chain=(*twin.chain, self.label()))

    def _chosen(self, twin: Twin) -> list[str]:
        """The names of the layers to prune."""
        names = [name for name, _ in prunable(twin.model)]
        if not names:
            raise NetzipError(
                f"{self.label()}: the network has no convolution or linear layer to prune"
            )
        kept = {*chosen(self.keep, names, f"{self.label()}: keep")}
        if kept == set(names):
            raise NetzipError(f"{self.label()}: keep: {self.keep!r} leaves no layer to prune")
        return [name for name in names if name not in kept]

    def _trained(self, twin: Twin, context: Context, gap: int) -> Twin:
        """Fine-tuned for the gap-th time, masks kept."""
        gaps, before = self.steps - 1, (gap - 1) * self.epochs
        told = dataclasses.replace(
            context,
            seed=context.seed + gap,  # another order of the images in each gap
            progress=lambda what, done: context.progress(
                f"step {gap}/{self.steps}, {what}", (gap - 1 + done) / gaps
            ),
            log=lambda key, value, epoch: context.log(key, value, before + epoch),
        )
        return self.train(twin, told)

    def _pruned(
        self, twin: Twin, names: list[str], start: list[tuple[int, int]], step: int, seed: int
    ) -> Twin:
        """The twin at the density of this step. `start`: zeros and size of each layer at first."""
        import torch

        made = twin.copy()
        weights = [weight.detach() for _, weight in _weights(made, names)]
        before = [
            twin.masks.get(_key(name), torch.ones(weight.shape, dtype=torch.bool)).to(weight.device)
            for name, weight in zip(names, weights, strict=True)
        ]
        scores = [
            torch.where(mask, score, -1.0)  # what is zero already counts in
            for mask, score in zip(before, self._scores(weights, seed), strict=True)
        ]
        if self.scope == "layer":
            counts = [self._count([of], step) for of in start]
            flat = [_without_least([s], n)[0] for s, n in zip(scores, counts, strict=True)]
        else:
            flat = _without_least(scores, self._count(start, step))
        masks = dict(twin.masks)
        for name, weight, old, new in zip(names, weights, before, flat, strict=True):
            mask = old & new
            if old.any() and not mask.any():
                raise NetzipError(
                    f"{self.label()}: ratio: {self.ratio:g} leaves no weight in layer {name!r},"
                    " whose output would be constant; allowed: a lower ratio,"
                    f" {'scope: layer, ' if self.scope == 'global' else ''}or keep: {name}"
                )
            weight.mul_(mask)
            masks[_key(name)] = mask.cpu()
        return made.replace(masks=masks)

    def _count(self, start: list[tuple[int, int]], step: int) -> int:
        """How many of some layers' weights are zero after a step."""
        zeros, size = (sum(column) for column in zip(*start, strict=True))
        return round(size * schedule(zeros / size, self.ratio, step, self.steps))


def schedule(first: float, last: float, step: int, steps: int) -> float:
    """Share of zeros after a step: last + (first - last) (1 - step / steps)^3, rising only.

    Args:
        first, last: shares before the first step and after the last one.
        step: from 1 to `steps`.

    >>> [round(schedule(0.0, 0.8, step, 4), 4) for step in (1, 2, 3, 4)]
    [0.4625, 0.7, 0.7875, 0.8]
    """
    return last + min(first - last, 0.0) * (1 - step / steps) ** 3


def prunable(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The convolutions and linear layers of a network, by name: those whose weights are pruned.

    A weight that two layers share stands under the first one's name.
    """
    from torch import nn

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    first = {id(module.weight): name for name, module in reversed(found)}
    return [(name, module) for name, module in found if first[id(module.weight)] == name]


def _weights(twin: Twin, names: list[str]) -> list[tuple[str, torch.Tensor]]:
    return [(name, twin.model.get_parameter(_key(name))) for name in names]


def _key(name: str) -> str:
    """A layer's weight among the twin's masks; the network may itself be the layer."""
    return f"{name}.weight" if name else "weight"


def _zeros(mask: torch.Tensor | None, weight: torch.Tensor) -> tuple[int, int]:
    """How many weights are masked, of how many."""
    return (0 if mask is None else int((~mask).sum())), weight.numel()


def _without_least(scores: list[torch.Tensor], count: int) -> list[torch.Tensor]:
    """Masks that are False at the `count` least scores of all tensors together."""
    import torch

    row = torch.cat([score.reshape(-1) for score in scores])
    mask = torch.ones(row.numel(), dtype=torch.bool, device=row.device)
    mask[torch.topk(row, count, largest=False).indices] = False
    pieces = mask.split([score.numel() for score in scores])
    return [piece.view(score.shape) for piece, score in zip(pieces, scores, strict=True)]
