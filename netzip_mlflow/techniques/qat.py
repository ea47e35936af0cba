"""Quantisation-aware training: the network learns to live with few bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from netzip_mlflow.errors import Problem
from netzip_mlflow.techniques.bit_widths import BITS, WIDTHS, Widths, idle_problems, mean_bits
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import Range, parameter
from netzip_mlflow.techniques.protocol import Traits
from netzip_mlflow.techniques.trained import Taught

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["QAT"]


@dataclass(frozen=True)
class QAT(Widths, Taught):
    """Fine-tunes with weights rounded to `bits`, and leaves them on that grid for `ptq` to store.

    With `budget`, the layers that suffer most get `wide` bits instead, as far as the mean of stored
    bits allows. The best epoch on validation is kept; the rounded network before training counts
    as epoch 0.
    Source: Esser et al., Learned Step Size Quantization (arXiv 1902.08153).
    """

    name: ClassVar[str] = "qat"
    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="float",
        summary="training with weights of 8 bits or fewer, optionally with the baseline as teacher",
        stage="grid",
        every_layer=True,
        keeps=("binarise",),
        needs_calibration=True,
        needs_training=True,
        starts=(
            {"bits": 4, "epochs": 2, "lr": 0.003},
            {"bits": "ternary", "budget": 1.8, "epochs": 4, "lr": 0.01},
        ),
    )
    bits: int | str = parameter(
        4, "stored bits of a weight", choices=WIDTHS, search=(8, 4, "ternary")
    )
    budget: float | None = mean_bits(search=(None, 1.8, 2.5))
    wide: int | str = parameter(4, "bits of the layers that suffer most", choices=WIDTHS[:2])
    _: KW_ONLY
    epochs: int = parameter(
        2, "passes over the training split", low=1, high=1000, search=Range(1, 6, log=True)
    )
    lr: float = parameter(
        0.001, "peak learning rate", low=1e-7, high=10.0, search=Range(1e-3, 0.03, log=True)
    )
    batch: int = parameter(128, "images a step", low=1, high=65536)
    weight_decay: float = parameter(1e-4, "L2 penalty", low=0.0, high=1.0)

    @classmethod
    def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
        """What is wrong with a recipe's parameters."""
        return super().problems(given, where) or idle_problems(cls, given, where)

    def label(self) -> str:
        return f"qat({BITS[self.bits]})"

    def apply(self, twin: Twin, context: Context) -> Twin:
        """A twin whose weights lie on grids.

        Raises:
            NetzipError: a layer cannot lie on its grid, a teacher is wanted and there is none, or
                the loss became non-finite.
        """
        from netzip_mlflow.quantisation import grids

        self.require_use("qat")
        forms = self._forms(twin, context)
        rules = grids.levels(twin, forms, "qat.bits")
        fitted = self.train(grids.put(twin, rules), context)
        return grids.take(fitted, twin).replace(chain=(*twin.chain, self.label()))

    def _forms(self, twin: Twin, context: Context) -> dict[str, str]:
        """The form of each layer that can be trained on a grid, by its name."""
        from netzip_mlflow.quantisation import grids, layers

        source = context.exports(twin)
        known = grids.layers(twin, context.exports)
        found = {w: f for w, f in layers.find(source, twin).items() if f.name in known}
        plan = self._plan("qat", source, found, context)
        return {found[weight].name: form for weight, form in plan.items()}
