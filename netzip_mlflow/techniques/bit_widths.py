"""Stored bits per layer: what `ptq` and `qat` share."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow.deployable.encodings import FORMS
from netzip_mlflow.errors import NetzipError, Problem
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import parameter
from netzip_mlflow.techniques.protocol import SizeBasis, Technique

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Exported
    from netzip_mlflow.quantisation.layers import Layer

__all__ = ["BITS", "WIDTHS", "Widths", "idle_problems", "mean_bits"]

BITS: Mapping[Any, str] = {8: "int8", 4: "int4", 3: "int3", 2: "int2", "ternary": "ternary"}
WIDTHS = tuple(BITS)


def mean_bits(search: tuple[float | None, ...] | None = None) -> Any:
    """The parameter `budget`; `search`: what a search tries of it."""
    return parameter(
        None,
        "mean stored bits; within it, the layers that suffer most get `wide`",
        kind=float,
        low=1.0,
        high=8.0,
        search=search,
    )


@dataclass(frozen=True)
class Widths(Technique):
    """One width for all layers but the first and the last; within a budget, a wider one for those
    that suffer most. Layers that lie on a grid already keep theirs."""

    bits: int | str = parameter(8, "stored bits of a weight", choices=WIDTHS, search=(8, 4))
    edges: int | str = parameter(8, "the same for the first and the last layer", choices=WIDTHS)
    budget: float | None = mean_bits()
    wide: int | str = parameter(8, "bits of the layers that suffer most", choices=WIDTHS[:2])

    @property
    def size_depends_on(self) -> SizeBasis:
        """Within a budget, the weights decide which layers are wide."""
        return "parameters" if self.budget is None else "weights"

    def _plan(
        self, name: str, source: Exported, found: Mapping[str, Layer], context: Context
    ) -> dict[str, str]:
        """The form of each layer, by its weight's name in the graph; `name`: of the technique.

        Raises:
            NetzipError: the budget is too small for `bits` and `edges`.
        """
        names = list(found)
        fixed = {weight: layer.grid.form for weight, layer in found.items() if layer.grid}
        plan = dict.fromkeys(names, BITS[self.bits])
        plan |= dict.fromkeys((*names[:1], *names[-1:]), BITS[self.edges]) | fixed
        if self.budget is None:
            return plan
        from netzip_mlflow.quantisation import sensitivity

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

    def idle(self) -> Problem | None:
        """A `budget` by which no layer could get more bits; `where` is the parameter's name."""
        return None if self.budget is None else self._narrow(self.bits, "budget")

    def _narrow(self, bits: int | str, what: str) -> Problem | None:
        """Whether `wide` is no wider than `bits`, though `what` asks for wider layers."""
        if FORMS[BITS[self.wide]].bits > FORMS[BITS[bits]].bits:
            return None
        told = f"{self.wide} given, and {what} looks for layers to store in more than {bits}"
        return Problem("wide", told, f"more, or fewer bits, or no {what}")

    def require_use(self, name: str) -> None:
        """Whether all parameters are of use; `name`: of the technique.

        Raises:
            NetzipError: one is not.
        """
        problem = self.idle()
        if problem:
            raise NetzipError(str(dataclasses.replace(problem, where=f"{name}.{problem.where}")))

    def _harm(
        self,
        source: Exported,
        found: Mapping[str, Layer],
        plan: Mapping[str, str],
        names: Collection[str],
        context: Context,
    ) -> dict[str, float]:
        """What rounding each of some layers alone to its form does to the outputs."""
        from netzip_mlflow.quantisation import sensitivity

        changed = {name: found[name].rounded(plan[name]) for name in names}
        samples, _ = next(context.calibration.batches(sensitivity.SAMPLES))
        differ = context.task.differ
        return sensitivity.damage(source.model, changed, samples, differ, context.progress)


def idle_problems(technique: type[Widths], given: Mapping[str, Any], where: str) -> list[Problem]:
    """`Widths.idle` of a recipe's parameters, which are known to be within their bounds."""
    problem = technique(**given).idle()
    return [dataclasses.replace(problem, where=f"{where}.{problem.where}")] if problem else []
