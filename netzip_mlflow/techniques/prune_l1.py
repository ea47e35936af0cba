"""Global unstructured pruning of the smallest weights (the paper's GUP_L1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.techniques import Context, Range, Traits, parameter

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["PruneL1"]


@dataclass(frozen=True)
class PruneL1:
    """Sets the `ratio` of weights with the least |w|, over all layers together, to zero.

    Zeros change neither operations nor the size of the file (paper, section 6); they show in
    `size/nonzero` and `size/zip_bytes`. Source: torch.nn.utils.prune.global_unstructured.
    """

    traits: ClassVar[Traits] = Traits(
        family="pruning",
        kind="float",
        stage="sparsity",
        summary="zeros in place of the smallest weights, over all layers together",
    )
    ratio: float = parameter(
        0.3, "share of weights set to zero", low=0.0, high=0.99, search=Range(0.1, 0.9)
    )

    def label(self) -> str:
        return f"prune_l1({self.ratio:g})"

    def apply(self, twin: Twin, context: Context) -> Twin:
        """A twin with zeros and the masks that keep them."""
        from torch.nn.utils import prune

        from netzip_mlflow.techniques.unstructured import prune_globally

        return prune_globally(twin, prune.L1Unstructured, self.ratio, context.seed, self.label())
