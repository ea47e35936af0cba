"""Stored bits per layer: what `ptq` and `qat` share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow.deployable.forms import FORMS
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.techniques import Context, parameter

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Exported
    from netzip_mlflow.techniques.layers import Layer

__all__ = ["BITS", "WIDTHS", "Widths"]

BITS: Mapping[Any, str] = {8: "int8", 4: "int4", 3: "int3", 2: "int2", "ternary": "ternary"}
WIDTHS = tuple(BITS)


@dataclass(frozen=True)
class Widths:
    """One width for all layers but the first and the last; within a budget, a wider one for those
    that suffer most. Layers that lie on a grid already keep theirs."""

    bits: int | str = parameter(8, "stored bits of a weight", choices=WIDTHS, search=(8, 4))
    edges: int | str = parameter(8, "the same for the first and the last layer", choices=WIDTHS)
    budget: float | None = parameter(
        None,
        "mean stored bits; within it, the layers that suffer most get `wide`",
        kind=float,
        low=1.0,
        high=8.0,
    )
    wide: int | str = parameter(8, "bits of the layers that suffer most", choices=WIDTHS[:2])

    def _plan(
        self, name: str, source: Exported, found: Mapping[str, Layer], context: Context
    ) -> dict[str, str]:
        """The form of each layer, by its weight's name in the graph; `name`: of the technique.

        Raises:
            NetzipError: the budget is too small for `bits` and `edges`, or `wide` is narrow.
        """
        names = list(found)
        fixed = {weight: layer.grid.form for weight, layer in found.items() if layer.grid}
        plan = dict.fromkeys(names, BITS[self.bits])
        plan |= dict.fromkeys((*names[:1], *names[-1:]), BITS[self.edges]) | fixed
        if self.budget is None:
            return plan
        from netzip_mlflow.techniques import sensitivity

        self._require_wider(name)
        sizes = {weight: layer.rows.size for weight, layer in found.items()}
        least = sensitivity.mean_bits(sizes, plan)
        if least > self.budget:
            raise NetzipError(
                f"{name}.budget: {self.budget:g} bits given, and without any wider layer the mean "
                f"is {least:.3f}; allowed: that or more, or narrower bits and edges"
            )
        free = [w for w in names if w not in fixed and plan[w] == BITS[self.bits]]
        harm = self._harm(source, found, plan, free, context)
        others = {weight: form for weight, form in plan.items() if weight not in free}
        wide = sensitivity.widened(
            harm, sizes, BITS[self.bits], BITS[self.wide], self.budget, others
        )
        return plan | dict.fromkeys(wide, BITS[self.wide])

    def _require_wider(self, name: str) -> None:
        """Whether `wide` is no narrower than `bits`; `name`: of the technique.

        Raises:
            NetzipError: it is narrower.
        """
        if FORMS[BITS[self.wide]].bits < FORMS[BITS[self.bits]].bits:
            raise NetzipError(
                f"{name}.wide: {self.wide} given, narrower than {name}.bits, which is {self.bits}; "
                f"allowed: {self.bits} or more, or fewer bits"
            )

    def _harm(
        self,
        source: Exported,
        found: Mapping[str, Layer],
        plan: Mapping[str, str],
        names: Collection[str],
        context: Context,
    ) -> dict[str, float]:
        """What rounding each of some layers alone to its form does to the outputs."""
        from netzip_mlflow.techniques import sensitivity

        changed = {name: found[name].rounded(plan[name]) for name in names}
        images, _ = next(context.calibration.batches(sensitivity.SAMPLES))
        return sensitivity.damage(source.model, changed, images, context.progress)
