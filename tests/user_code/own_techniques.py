"""Techniques as a user writes them: found by `own_techniques:name` in a recipe's chain."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from netzip_mlflow.deployable import Deployable
from netzip_mlflow.techniques import Context, Range, Technique, Traits, parameter
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.twin import Edit, Twin

__all__ = [
    "Clip",
    "Factorise",
    "Forgetful",
    "Loose",
    "as_is",
    "damp",
    "nothing",
    "nothing_deployed",
    "peek",
    "settle",
    "swap",
]


@dataclass(frozen=True)
class Clip(Technique):
    """Weights within limits."""

    name: ClassVar[str] = "clip"
    traits: ClassVar[Traits] = Traits(family="own", kind="float", summary="weights within limits")
    limit: float = parameter(1.0, "largest magnitude", low=0.1, high=10.0, search=Range(0.5, 2.0))

    def label(self) -> str:
        return f"clip({self.limit:g})"

    def apply(self, twin: Twin, context: Context) -> Twin:
        made = twin.copy()
        with torch.no_grad():
            for weight in made.model.parameters():
                weight.clamp_(-self.limit, self.limit)
        return made.replace(chain=(*twin.chain, self.label()))


def damp(twin: Twin, context: Context, factor: float, bias: bool = False) -> Twin:
    """Scale the last layer."""
    with torch.no_grad():
        twin.model.linear.weight.mul_(factor)
        if bias:
            twin.model.linear.bias.mul_(factor)
    return twin


def swap(twin: Twin, context: Context, slope: float) -> Twin:
    """Put an activation of another slope behind the last layer: no weight changes."""
    twin.model.linear = nn.Sequential(twin.model.linear, nn.LeakyReLU(slope))
    return twin


def settle(twin: Twin, context: Context, eps: float) -> Twin:
    """Set the epsilon of the first normalisation: no weight and no structure changes."""
    twin.model.bn1.eps = eps
    return twin


def as_is(twin: Twin, context: Context) -> Deployable:
    """Ship the twin in FP32."""
    return deploy(twin, context)


as_is.kind = "deploy"


def nothing(twin: Twin, context: Context) -> None:
    """Forget the return value."""


def nothing_deployed(twin: Twin, context: Context) -> None:
    """Forget the return value at the end of a chain."""


nothing_deployed.kind = "deploy"


def peek(twin: Twin, context: Context, final: bool) -> Twin:
    """Try to tune on the test split."""
    context.task.split("test", final=final)
    return twin


@dataclass(frozen=True)
class Factorise(Technique):
    """The last layer as a product of two, by singular values: fewer parameters, other structure."""

    name: ClassVar[str] = "factorise"
    traits: ClassVar[Traits] = Traits(
        family="decomposition", kind="float", summary="two thin layers", stage="structure"
    )
    rank: int = parameter(2, "inner width", low=1, high=64)

    def label(self) -> str:
        """For tables."""
        return f"factorise({self.rank})"

    def apply(self, twin: Twin, context: Context) -> Twin:
        """Replace `linear` and record the edit."""
        edit = Edit("own_techniques:Factorise", {"rank": self.rank})
        model = self.replay(copy.deepcopy(twin.model), edit.data)
        with torch.no_grad():
            u, s, v = torch.linalg.svd(twin.model.linear.weight, full_matrices=False)
            model.linear[0].weight.copy_(v[: self.rank])
            model.linear[1].weight.copy_(u[:, : self.rank] * s[: self.rank])
            model.linear[1].bias.copy_(twin.model.linear.bias)
        chain = (*twin.chain, self.label())
        return twin.replace(model=model.eval(), edits=(*twin.edits, edit), chain=chain)

    @staticmethod
    def replay(model: nn.Module, edit: Mapping[str, Any]) -> nn.Module:
        """The structure of the edit, without its weights."""
        whole = model.linear
        first = nn.Linear(whole.in_features, edit["rank"], bias=False)
        model.linear = nn.Sequential(first, nn.Linear(edit["rank"], whole.out_features))
        return model


@dataclass(frozen=True)
class Forgetful(Technique):
    """Records an edit that it cannot replay."""

    name: ClassVar[str] = "forgetful"
    traits: ClassVar[Traits] = Traits("own", "float", "no replay", stage="structure")

    def apply(self, twin: Twin, context: Context) -> Twin:
        """Only the record."""
        return twin.replace(edits=(*twin.edits, Edit("own_techniques:Forgetful", {})))


@dataclass(frozen=True)
class Loose(Technique):
    """A technique whose field has no bounds, and that has no name."""

    traits: ClassVar[Traits] = Traits("own", "float", "loose")
    ratio: float = 0.5

    def apply(self, twin: Twin, context: Context) -> Twin:
        """Never reached."""
        raise AssertionError
