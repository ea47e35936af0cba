"""Unstructured pruning of random weights (the paper's GUP_R)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.techniques.protocol import Traits
from netzip_mlflow.techniques.unstructured import Unstructured

if TYPE_CHECKING:
    import torch

__all__ = ["PruneRandom"]


@dataclass(frozen=True)
class PruneRandom(Unstructured):
    """Sets a seeded random `ratio` of weights to zero: the control that a pruning must beat.

    Zeros change no operations; the file packs them as it does those of `prune_l1`. In one step it
    draws as torch.nn.utils.prune does under the same seed.
    """

    name: ClassVar[str] = "prune_random"
    traits: ClassVar[Traits] = Traits(
        family="pruning",
        kind="float",
        stage="sparsity",
        summary="zeros in place of random weights, at once or in steps with training",
        searched=False,
    )

    def _scores(self, weights: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
        """Uniform in (0, 1]; the same draw at every step, so that masks are nested."""
        import torch

        draw = torch.Generator().manual_seed(seed)
        return [1 - torch.rand(w.shape, generator=draw).to(w.device) for w in weights]
