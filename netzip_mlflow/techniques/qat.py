"""Quantisation-aware training: the network learns to live with few bits."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.techniques import Context, Range, Traits, parameter
from netzip_mlflow.techniques.ptq import BITS, WIDTHS
from netzip_mlflow.techniques.trained import Taught

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["QAT"]


@dataclass(frozen=True)
class QAT(Taught):
    """Fine-tunes with weights rounded to `bits`, and leaves them on that grid for `ptq` to store.

    With `budget`, the layers that suffer most get `wide` bits instead, as far as the mean of stored
    bits allows. The best epoch on validation is kept; the rounded network before training counts
    as epoch 0.
    Source: Esser et al., Learned Step Size Quantization (arXiv 1902.08153).
    """

    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="float",
        summary="training with weights of 8 bits or fewer, optionally with the baseline as teacher",
        stage="grid",
        needs_calibration=True,
        needs_training=True,
    )
    bits: int | str = parameter(
        4, "stored bits of a weight", choices=WIDTHS, search=(8, 4, 2, "ternary")
    )
    edges: int | str = parameter(8, "the same for the first and the last layer", choices=WIDTHS)
    budget: float | None = parameter(
        None,
        "mean stored bits; within it, the layers that suffer most get `wide`",
        kind=float,
        low=1.0,
        high=8.0,
    )
    wide: int | str = parameter(4, "bits of the layers that suffer most", choices=WIDTHS[:2])
    _: KW_ONLY
    epochs: int = parameter(2, "passes over the training split", low=1, high=1000)
    lr: float = parameter(
        0.001, "peak learning rate", low=1e-7, high=10.0, search=Range(1e-4, 0.1, log=True)
    )
    batch: int = parameter(128, "images a step", low=1, high=65536)
    weight_decay: float = parameter(1e-4, "L2 penalty", low=0.0, high=1.0)

    def label(self) -> str:
        return f"qat({BITS[self.bits]})"

    def apply(self, twin: Twin, context: Context) -> Twin:
        """A twin whose weights lie on grids.

        Raises:
            NetzipError: a layer cannot lie on its grid, a teacher is wanted and there is none, or
                the loss became non-finite.
        """
        from netzip_mlflow.techniques import grids

        forms = self._forms(twin, context)
        fitted = self.train(grids.put(twin, grids.levels(twin, forms)), context)
        return grids.take(fitted, twin).replace(chain=(*twin.chain, self.label()))

    def _forms(self, twin: Twin, context: Context) -> dict[str, str]:
        from netzip_mlflow.techniques import grids

        names = list(grids.layers(twin, context))
        forms = dict.fromkeys(names, BITS[self.bits])
        forms |= dict.fromkeys((*names[:1], *names[-1:]), BITS[self.edges])
        forms |= {name: grid.form for name, grid in twin.grids.items()}
        if self.budget is None:
            return forms
        from netzip_mlflow.techniques import layers, sensitivity

        source = context.exports(twin)
        found = {layer.name: (weight, layer) for weight, layer in layers.find(source, twin).items()}
        free = [n for n in names if n not in twin.grids and forms[n] == BITS[self.bits]]
        sizes = {name: found[name][1].rows.size for name in names}
        least = sensitivity.mean_bits(sizes, forms)
        if least > self.budget:
            raise NetzipError(
                f"qat.budget: {self.budget:g} bits given, and without any wider layer the mean is "
                f"{least:.3f}; allowed: that or more, or narrower bits and edges"
            )
        images, _ = next(context.calibration.batches(sensitivity.SAMPLES))
        changed = {found[n][0]: found[n][1].rounded(forms[n]) for n in free}
        harm = sensitivity.damage(source.model, changed, images, context.progress)
        by_name = {name: harm[found[name][0]] for name in free}
        others = {name: form for name, form in forms.items() if name not in free}
        wide = sensitivity.widened(
            by_name, sizes, BITS[self.bits], BITS[self.wide], self.budget, others
        )
        return forms | dict.fromkeys(wide, BITS[self.wide])
