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
BINS, LEVELS = 512, 255  # of the entropy search; more bins take minutes


@dataclass(frozen=True)
class PTQ:
    """int8 weights (per channel, symmetric), uint8 activations (per tensor), ranges from data.

    Source: ONNX Runtime, "Quantize ONNX models"; U8S8 in QDQ form is its fast case on CPUs.
    Entropy and percentile clip the largest activations, which small networks seldom gain by.
    `reduce_range` keeps weights in 7 of the 8 bits: processors without VNNI add pairs of products
    in 16 bits, which saturates with full-range weights, so that the same file would be less
    accurate there (0.8 points on ResNet-20/CIFAR-10).
    """

    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="deploy",
        summary="int8 weights and activations, ranges from calibration data",
        needs_calibration=True,
        reads_grids=True,
    )
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

        percentile = self.calibration == "percentile"
        method = ort.CalibrationMethod.Percentile if percentile else ort.CalibrationMethod.MinMax
        extra: dict[str, object] = {"CalibPercentile": self.percentile} if percentile else {}
        with tempfile.TemporaryDirectory() as folder, quiet_quantiser():
            source, prepared, target = (
                Path(folder, n) for n in ("in.onnx", "pre.onnx", "out.onnx")
            )
            onnx.save(model, source)
            ort.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            if self.calibration == "entropy":
                extra["TensorQuantOverrides"] = _entropy_ranges(prepared, split)
            ort.quantize_static(
                str(prepared),
                str(target),
                _Reader(split),  # type: ignore[arg-type]  (its get_next is all that is used)
                quant_format=ort.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=self.reduce_range,
                weight_type=ort.QuantType.QInt8,
                activation_type=ort.QuantType.QUInt8,
                calibrate_method=method,
                calibration_providers=["CPUExecutionProvider"],
                extra_options=extra,
            )
            return onnx.load(target)


def _entropy_ranges(model: Path, split: Split) -> dict[str, list[dict[str, np.float32]]]:
    """Range of each activation that loses least in relative entropy, as overrides.

    Not by `quantize_static` itself: it fixes 128 bins for 128 levels, which leaves one choice, the
    same as minmax.
    """
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    calibrator = create_calibrator(
        str(model),
        augmented_model_path=str(model.with_name("augmented.onnx")),
        calibrate_method=CalibrationMethod.Entropy,
        providers=["CPUExecutionProvider"],
        extra_options={"num_bins": BINS, "num_quantized_bins": LEVELS},
    )
    calibrator.collect_data(_Reader(split))  # type: ignore[arg-type]  (get_next is all it uses)
    return {
        name: [{"rmin": np.float32(found.lowest), "rmax": np.float32(found.highest)}]
        for name, found in calibrator.compute_data().items()
    }


class _Reader:
    """Batches of the calibration split, in the form that ONNX Runtime's calibrators read."""

    def __init__(self, split: Split) -> None:
        self._batches = split.batches(BATCH)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch[0]}
