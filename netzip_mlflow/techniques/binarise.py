"""Binarisation: weights of one bit and a scale per output channel."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import Range, parameter
from netzip_mlflow.techniques.protocol import Traits
from netzip_mlflow.techniques.trained import Taught

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["Binarise"]


@dataclass(frozen=True)
class Binarise(Taught):
    """Trains with the sign of each weight times a scale, and leaves the weights there for `ptq`.

    The scale starts as the mean of |w| and is learned; gradients pass straight through the sign.
    One bit a weight costs accuracy, most in the first and the last layer, which are left alone by
    default. Source: Courbariaux et al., BinaryConnect (arXiv 1511.00363); Rastegari et al.,
    XNOR-Net (arXiv 1603.05279), section 3.1.
    """

    name: ClassVar[str] = "binarise"
    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="float",
        summary="training with weights of one bit and a scale per output channel",
        stage="grid",
        keeps=("qat", "binarise"),
        needs_training=True,
    )
    layers: str | None = parameter(
        None,
        "names or patterns, separated by commas; null: all but the first and the last",
        kind=str,
    )
    _: KW_ONLY
    epochs: int = parameter(4, "passes over the training split", low=1, high=1000)
    lr: float = parameter(
        0.01, "peak learning rate", low=1e-7, high=10.0, search=Range(1e-3, 0.03, log=True)
    )
    batch: int = parameter(128, "images a step", low=1, high=65536)
    weight_decay: float = parameter(1e-4, "L2 penalty", low=0.0, high=1.0)

    def apply(self, twin: Twin, context: Context) -> Twin:
        """A twin whose named layers have two values per output channel.

        Raises:
            NetzipError: a name that no layer has, a pruned layer, a teacher is wanted and there is
                none, or the loss became non-finite.
        """
        from netzip_mlflow.quantisation import grids
        from netzip_mlflow.techniques.patterns import chosen

        names = list(grids.layers(twin, context.exports))
        inner = names[1:-1] or names
        wanted = inner if self.layers is None else chosen(self.layers, names, "binarise.layers")
        rules = grids.levels(twin, dict.fromkeys(wanted, "binary"), "binarise.layers")
        fitted = self.train(grids.put(twin, rules), context)
        return grids.take(fitted, twin).replace(chain=(*twin.chain, self.label()))
