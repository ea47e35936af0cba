"""Post-training static quantisation: int8 arithmetic, weights stored in 8 bits or fewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from netzip_mlflow import runtimes
from netzip_mlflow.deployable import Deployable, compact, pack_zeros
from netzip_mlflow.deployable.encodings import FORMS
from netzip_mlflow.errors import NetzipError, Problem
from netzip_mlflow.techniques.bit_widths import BITS, Widths, idle_problems
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import Range, parameter, unread
from netzip_mlflow.techniques.protocol import SizeBasis, Traits

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Exported
    from netzip_mlflow.quantisation.layers import Layer
    from netzip_mlflow.twin import Twin

__all__ = ["PTQ"]


@dataclass(frozen=True)
class PTQ(Widths):
    """Weights per channel and symmetric, uint8 activations per tensor, ranges from data.

    Source: ONNX Runtime, "Quantize ONNX models"; U8S8 in QDQ form is its fast case on CPUs.
    Fewer bits are a matter of the file: the runtime unpacks them to int8 when it loads it, so that
    speed and operations are those of int8. Weights that `qat` or `binarise` have put on a grid are
    stored on it as they are; the parameters below speak of the others.
    Entropy and percentile clip the largest activations, which small networks seldom gain by.
    `reduce_range` keeps int8 weights in 7 of the 8 bits: processors without VNNI add pairs of
    products in 16 bits, which saturates with full-range weights, so that the same file would be
    less accurate there (0.8 points on ResNet-20/CIFAR-10).
    """

    name: ClassVar[str] = "ptq"
    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="deploy",
        summary="int8 arithmetic, weights stored in 8 bits or fewer, ranges from calibration data",
        needs_calibration=True,
        reads_grids=True,
        off_grid=("bits", "edges", "budget", "wide", "max_drop"),
        starts=({"bits": 4},),
    )
    max_drop: float | None = parameter(
        None,
        "points on validation; ever more layers get `wide` until the drop is within",
        kind=float,
        low=0.0,
        high=100.0,
    )
    correct_bias: bool = parameter(True, "below 8 bits: biases make up for the mean error")
    calibration: str = parameter(
        "minmax",
        "how ranges are found",
        choices=("minmax", "entropy", "percentile"),
        search=("minmax", "percentile"),
    )
    percentile: float = parameter(
        99.999,
        "for calibration: percentile; share of values kept, in percent",
        low=50.0,
        high=100.0,
        search=Range(99.9, 100.0),
    )
    reduce_range: bool = parameter(True, "int8 weights in [-64, 64]: no saturation without VNNI")

    @classmethod
    def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
        """What is wrong with a recipe's parameters."""
        found = super().problems(given, where)
        if found:
            return found
        calibration = given.get("calibration", cls.calibration)
        if calibration != "percentile":
            why = f"which calibration: {calibration} does not read"
            found += unread(given, ["percentile"], where, why, "calibration: percentile beside it")
        return found + idle_problems(cls, given, where)

    def idle(self) -> Problem | None:
        """A `budget` or `max_drop` by which no layer could get more bits."""
        narrow = min(self.bits, self.edges, key=lambda bits: FORMS[BITS[bits]].bits)
        told = None if self.max_drop is None else self._narrow(narrow, "max_drop")
        return super().idle() or told

    @property
    def size_depends_on(self) -> SizeBasis:
        """Until the drop is within `max_drop`, layers get wider."""
        return super().size_depends_on if self.max_drop is None else "training"

    def label(self) -> str:
        return f"ptq({BITS[self.bits]})"

    def apply(self, twin: Twin, context: Context) -> Deployable:
        """Quantise the exported twin.

        Raises:
            NetzipError: calibration images are of another shape; it cannot be exported; a layer
                that is to be stored in few bits is not quantised by the runtime's quantiser, or is
                pruned and its form has no zero; the budget is too small; `wide` is narrow.
        """
        from netzip_mlflow.quantisation import layers

        given = context.calibration.shape
        if given != twin.input.shape:
            raise NetzipError(
                f"ptq: calibration images are of {given}; allowed: {twin.input.shape}, which the "
                "network takes"
            )
        self.require_use("ptq")
        source = context.exports(twin)
        found = layers.find(source, twin)
        plan = self._plan("ptq", source, found, context)
        layers.require_zeros(found, plan, twin, "ptq.bits")
        made = self._build(twin, source, found, plan, context)
        if self.max_drop is not None:
            made = self._within(made, twin, source, found, plan, context)
        return made

    def _build(
        self,
        twin: Twin,
        source: Exported,
        found: Mapping[str, Layer],
        plan: Mapping[str, str],
        context: Context,
    ) -> Deployable:
        from netzip_mlflow.deployable.integer import least_runtime, with_weights
        from netzip_mlflow.quantisation import layers, sensitivity
        from netzip_mlflow.quantisation.calibration import quantise

        weights = layers.weights(found, plan, reduced=self.reduce_range)
        model = source.model
        if any(form != "int8" for form in plan.values()):  # ranges of what will really be computed
            model = layers.with_rounded(model, found, weights)
            if self.correct_bias:
                images, _ = next(context.calibration.batches(sensitivity.SAMPLES))
                model = layers.with_corrected_biases(model, source.model, found, images)
        quantised = quantise(
            model, context.calibration, self.calibration, self.percentile, self.reduce_range
        )
        stored = compact(with_weights(quantised, weights))
        return Deployable.of(
            pack_zeros(stored) if twin.masks else stored,
            twin,
            source,
            task=context.task.name,
            label=self.label(),
            calibration_digest=context.calibration.digest,
            least_runtime={runtimes.DEFAULT: least_runtime(plan.values())},
        )

    def _within(
        self,
        made: Deployable,
        twin: Twin,
        source: Exported,
        found: Mapping[str, Layer],
        plan: Mapping[str, str],
        context: Context,
    ) -> Deployable:
        """Twice as many wide layers each time, the worst first, until validation is satisfied.

        The file with the least drop is returned where none satisfies.
        """
        from netzip_mlflow.quantisation import sensitivity
        from netzip_mlflow.quantisation.calibration import accuracy

        assert self.max_drop is not None  # noqa: S101 (the caller has looked)
        origin = context.exports(context.teacher or twin).model
        # a drop of exactly max_drop is within, whichever way the subtraction rounds
        limit = accuracy(origin, context.task) - self.max_drop / 100 - 1e-9
        wide = FORMS[BITS[self.wide]].bits
        free = [n for n, f in found.items() if not f.grid and FORMS[plan[n]].bits < wide]
        harm = self._harm(source, found, plan, free, context) if free else {}
        order = sensitivity.ranked(harm)
        best, reached, count = made, accuracy(made.model, context.task), 1
        while reached < limit and order:
            plan = {**plan, **dict.fromkeys(order[:count], BITS[self.wide])}
            order, count = order[count:], 2 * count
            made = self._build(twin, source, found, plan, context)
            right = accuracy(made.model, context.task)
            context.log("ptq/validation", right, sum(f == BITS[self.wide] for f in plan.values()))
            if right > reached:
                best, reached = made, right
        return best
