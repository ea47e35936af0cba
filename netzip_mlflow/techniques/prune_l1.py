"""Unstructured pruning of the smallest weights (the paper's GUP_L1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.techniques.protocol import Traits
from netzip_mlflow.techniques.unstructured import Unstructured

if TYPE_CHECKING:
    import torch

__all__ = ["PruneL1"]


@dataclass(frozen=True)
class PruneL1(Unstructured):
    """Sets the `ratio` of weights with the least |w| to zero.

    Zeros change no operations; the file packs them where that makes it smaller, which a plain one
    would not (paper, section 6). They show in `size/nonzero` too. In one step it chooses as
    torch.nn.utils.prune does (`global_unstructured` or, per layer, `l1_unstructured`).
    """

    name: ClassVar[str] = "prune_l1"
    traits: ClassVar[Traits] = Traits(
        family="pruning",
        kind="float",
        stage="sparsity",
        summary="zeros in place of the smallest weights, at once or in steps with training",
    )

    def _scores(self, weights: list[torch.Tensor], seed: int) -> list[torch.Tensor]:  # noqa: ARG002
        """The magnitudes; the seed plays no part."""
        return [weight.abs() for weight in weights]
