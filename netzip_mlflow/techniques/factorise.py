"""Factorisation: layers of low rank in place of those that get cheaper by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from netzip_mlflow.errors import NetzipError, Problem
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import Range, parameter, unread
from netzip_mlflow.techniques.patterns import chosen
from netzip_mlflow.techniques.protocol import SizeBasis, Technique, Traits

if TYPE_CHECKING:
    import torch
    from torch import nn

    from netzip_mlflow.twin import Twin

__all__ = ["Factorise"]


@dataclass(frozen=True)
class Factorise(Technique):
    """Splits linear layers and 1x1 convolutions in two (truncated SVD) and spatial convolutions
    into 1x1 -> kxk -> 1x1 (Tucker-2 by HOSVD and HOOI; Kim et al., arXiv 1511.06530, section 3).

    `method` chooses the ranks of each unfolding: `ratio` a share of the full rank, `energy` a share
    of the squared singular values, `vbmf` what empirical variational Bayes takes for signal
    (Nakajima et al., JMLR 14, 2013). Only layers whose multiply-accumulates fall are replaced; one
    of which VBMF takes all for noise stays too, unless `layers` asked for it: then it is an error.
    """

    name: ClassVar[str] = "factorise"
    traits: ClassVar[Traits] = Traits(
        family="decomposition",
        kind="float",
        stage="structure",
        summary="layers of low rank, by SVD and Tucker-2, where that is cheaper",
    )
    method: str = parameter("ratio", "how ranks are chosen", choices=("ratio", "energy", "vbmf"))
    ratio: float = parameter(
        0.5, "for method: ratio; share of the full rank", low=0.01, high=1.0, search=Range(0.1, 0.9)
    )
    energy: float = parameter(
        0.9, "for method: energy; share of squared singular values kept", low=0.01, high=1.0
    )
    layers: str | None = parameter(
        None, "only these: names or patterns with *, by commas; null: all", kind=str
    )
    keep: str | None = parameter(
        None, "leave these alone: names or patterns with *, by commas", kind=str
    )
    hooi: int = parameter(2, "sweeps that refine Tucker-2", low=0, high=100)

    @classmethod
    def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
        """What is wrong with a recipe's parameters."""
        found = super().problems(given, where)
        method = given.get("method", cls.method)
        why = f"which method: {method} does not read"
        for key in ("ratio", "energy"):
            if key != method and not found:
                found += unread(given, [key], where, why, f"method: {key} beside it")
        return found

    @property
    def size_depends_on(self) -> SizeBasis:
        """Ranks by energy or VBMF are those of the weights."""
        return "parameters" if self.method == "ratio" else "weights"

    def label(self) -> str:
        given = {"ratio": f"{self.ratio:g}", "energy": f"energy {self.energy:g}"}
        return f"factorise({given.get(self.method, self.method)})"

    def apply(self, twin: Twin, context: Context) -> Twin:  # noqa: ARG002 (the contract's)
        """A twin whose layers are split, exact where nothing got cheaper.

        Raises:
            NetzipError: a pattern names no layer, a layer of `layers` gets rank 0, no layer can be
                split, or the twin carries masks or grids, which would no longer fit.
        """
        from netzip_mlflow.edits.low_rank import factorised
        from netzip_mlflow.twin import Edit

        for what, carried in (("masks", twin.masks), ("grids", twin.grids)):
            if carried:
                raise NetzipError(
                    f"factorise: the network carries {what} on {', '.join(sorted(carried))}, which "
                    "would not fit the new layers; allowed: factorise before what made them"
                )
        made = twin.copy()
        ranks = self._ranks(made.model, twin.input.shape)
        for name, kept in ranks.items():
            layer: Any = made.model.get_submodule(name)
            made.model.set_submodule(name, factorised(layer, kept, self.hooi))
        _require_runs(made.model, twin.input.shape)
        edits = twin.edits
        if ranks:
            edits = (*edits, Edit("factorise", {"layers": {k: [*v] for k, v in ranks.items()}}))
        return made.replace(edits=edits, chain=(*twin.chain, self.label()))

    def _ranks(self, model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The ranks of every layer that gets cheaper, by name."""
        from netzip_mlflow.edits.low_rank import cheapest, factorisable, positions

        known = factorisable(model)
        if not known:
            raise NetzipError("factorise: the network has no linear layer or convolution to split")
        names = [*known]
        only = "*" if self.layers is None else self.layers
        wanted = {*chosen(only, names, "factorise: layers")}
        wanted -= {*chosen(self.keep, names, "factorise: keep")}
        found = {}
        for name, seen in positions(model, shape).items():
            if name not in wanted:
                continue
            ranks = self._chosen(name, known[name].weight)
            if 0 not in ranks:
                best = cheapest(known[name].weight, ranks, seen)
                found |= {name: best} if best else {}
            elif self.layers is not None:  # asked for by name; else it is one that VBMF cannot read
                raise NetzipError(
                    f"factorise: layer {name}: method: {self.method} gives rank 0, as if it held "
                    f"nothing; allowed: method: ratio, or without {name} in layers"
                )
        return found

    def _chosen(self, name: str, weight: torch.Tensor) -> tuple[int, ...]:
        from netzip_mlflow.edits.low_rank import singular_values, unfoldings
        from netzip_mlflow.techniques import ranks

        found = []
        for matrix in unfoldings(weight):
            if self.method == "ratio":
                found.append(ranks.by_ratio(len(matrix), self.ratio))
                continue
            values = singular_values(matrix).cpu().numpy()
            if not math.isfinite(values.sum()):
                raise NetzipError(f"factorise: layer {name}: its weights are not finite")
            if self.method == "energy":
                found.append(ranks.by_energy(values, self.energy))
            else:
                found.append(ranks.by_vbmf(values, matrix.shape[1]))
        return tuple(found)


def _require_runs(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Some modules read a layer's weight past its forward (torch's TransformerEncoderLayer)."""
    import torch

    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape))
    except AttributeError as error:
        raise NetzipError(
            f"factorise: the network uses a layer other than by calling it, so it cannot be split: "
            f"{error}; name it in keep"
        ) from error
