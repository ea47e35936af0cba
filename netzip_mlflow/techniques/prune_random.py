"""Global unstructured pruning of random weights (the paper's GUP_R)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.techniques import Context, Range, Traits, parameter

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["PruneRandom"]


@dataclass(frozen=True)
class PruneRandom:
    """Sets a seeded random `ratio` of all weights to zero: the control that a pruning must beat.

    Zeros change neither operations nor the size of the file (paper, section 6).
    Source: torch.nn.utils.prune.global_unstructured.
    """

    traits: ClassVar[Traits] = Traits(
        family="pruning",
        kind="float",
        stage="sparsity",
        summary="zeros in place of random weights, over all layers together",
    )
    ratio: float = parameter(
        0.3, "share of weights set to zero", low=0.0, high=0.99, search=Range(0.1, 0.9)
    )

    def label(self) -> str:
        return f"prune_random({self.ratio:g})"

    def apply(self, twin: Twin, context: Context) -> Twin:
        """A twin with zeros and the masks that keep them."""
        from torch.nn.utils import prune

        from netzip_mlflow.techniques.unstructured import prune_globally

        return prune_globally(
            twin, prune.RandomUnstructured, self.ratio, context.seed, self.label()
        )
