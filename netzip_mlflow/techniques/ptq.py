"""Post-training static quantisation to int8, by ONNX Runtime's own quantiser, in a compact file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.deployable import INPUT, Deployable, compact
from netzip_mlflow.techniques import Context, Traits, parameter
from netzip_mlflow.techniques.quiet import quiet_quantiser

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from netzip_mlflow.data import Split
    from netzip_mlflow.twin import Twin

__all__ = ["PTQ"]

BATCH = 32


@dataclass(frozen=True)
class PTQ:
    """int8 weights (per channel, symmetric), uint8 activations (per tensor), ranges from data.

    Source: ONNX Runtime, "Quantize ONNX models"; U8S8 in QDQ form is its fast case on CPUs.
    `reduce_range` keeps weights in 7 of the 8 bits: processors without VNNI add pairs of products
    in 16 bits, which saturates with full-range weights, so that the same file would be less
    accurate there (0.8 points on ResNet-20/CIFAR-10).
    """

    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="deploy",
        summary="int8 weights and activations, ranges from calibration data",
        needs_calibration=True,
    )
    calibration: str = parameter(
        "minmax", "how ranges are found", choices=("minmax", "entropy", "percentile")
    )
    percentile: float = parameter(
        99.999,
        "for calibration: percentile; share of values kept, in percent",
        low=50.0,
        high=100.0,
    )
    reduce_range: bool = parameter(True, "weights in [-64, 64]: no saturation without VNNI")

    def label(self) -> str:
        return "ptq(int8)"

    def apply(self, twin: Twin, context: Context) -> Deployable:
        """Quantise the exported twin; raises NetzipError when it cannot be exported."""
        source = context.exports(twin)
        quantised = self._quantise(source.model, context.calibration)
        return Deployable.of(
            compact(quantised),
            twin,
            source,
            task=context.task.name,
            label=self.label(),
            calibration_digest=context.calibration.digest,
        )

    def _quantise(self, model: onnx.ModelProto, split: Split) -> onnx.ModelProto:
        import onnx
        from onnxruntime import quantization as ort

        methods = {
            "minmax": ort.CalibrationMethod.MinMax,
            "entropy": ort.CalibrationMethod.Entropy,
            "percentile": ort.CalibrationMethod.Percentile,
        }
        extra: dict[str, object] = {}
        if self.calibration == "percentile":
            extra["CalibPercentile"] = self.percentile
        with tempfile.TemporaryDirectory() as folder, quiet_quantiser():
            source, prepared, target = (
                Path(folder, n) for n in ("in.onnx", "pre.onnx", "out.onnx")
            )
            onnx.save(model, source)
            ort.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            ort.quantize_static(
                str(prepared),
                str(target),
                _Reader(split),  # type: ignore[arg-type]  (its get_next is all that is used)
                quant_format=ort.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=self.reduce_range,
                weight_type=ort.QuantType.QInt8,
                activation_type=ort.QuantType.QUInt8,
                calibrate_method=methods[self.calibration],
                calibration_providers=["CPUExecutionProvider"],
                extra_options=extra,
            )
            return onnx.load(target)


class _Reader:
    """Batches of the calibration split, in the form that ONNX Runtime's calibrators read."""

    def __init__(self, split: Split) -> None:
        self._batches = split.batches(BATCH)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch[0]}
