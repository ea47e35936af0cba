"""Weight sharing: every convolution kernel is one of a code book's, named by a byte."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import Range, parameter
from netzip_mlflow.techniques.protocol import Traits
from netzip_mlflow.techniques.trained import Taught

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["ShareKernels"]


@dataclass(frozen=True)
class ShareKernels(Taught):
    """Vector quantisation of spatial kernels: k-means, then training of the code books.

    A kernel of 3x3 weights becomes one byte, which names one of 128 kernels of int8 numbers or the
    negative of one; `books` code books are shared by neighbouring layers. Kernels change their
    place in the book while they are trained. Layers without spatial kernels, the first and the
    last get 8 bits.
    Source: Han et al., Deep Compression (arXiv 1510.00149), section 3; whole kernels as in Son et
    al., Clustering Convolutional Kernels (ECCV 2018).
    """

    name: ClassVar[str] = "share_kernels"
    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="float",
        summary="convolution kernels from trained code books, one byte a kernel",
        stage="grid",
        every_layer=True,
        needs_training=True,
        starts=({"books": 5, "epochs": 8, "lr": 0.01},),
    )
    books: int = parameter(1, "code books", low=1, high=64, search=Range(1, 6))
    _: KW_ONLY
    epochs: int = parameter(
        4, "passes over the training split", low=1, high=1000, search=Range(4, 12, log=True)
    )
    lr: float = parameter(
        0.01, "peak learning rate", low=1e-7, high=10.0, search=Range(3e-3, 0.03, log=True)
    )
    batch: int = parameter(128, "images a step", low=1, high=65536)
    weight_decay: float = parameter(1e-4, "L2 penalty", low=0.0, high=1.0)

    def label(self) -> str:
        return f"share_kernels({self.books})"

    def apply(self, twin: Twin, context: Context) -> Twin:
        """A twin whose spatial kernels come from code books.

        Raises:
            NetzipError: there is no spatial kernel, or fewer layers with some than books; a pruned
                layer; a teacher is wanted and there is none; the loss became non-finite.
        """
        from netzip_mlflow.quantisation import grids
        from netzip_mlflow.techniques import code_books

        rules = code_books.rules(
            twin, grids.layers(twin, context.exports), self.books, context.seed
        )
        fitted = self.train(grids.put(twin, rules), context)
        return grids.take(fitted, twin).replace(chain=(*twin.chain, self.label()))
