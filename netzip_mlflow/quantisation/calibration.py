"""Activation ranges by ONNX Runtime's quantiser, and how good the file is on validation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from netzip_mlflow import runtimes
from netzip_mlflow.deployable import INPUT
from netzip_mlflow.quantisation.quantiser_output import quiet_quantiser

if TYPE_CHECKING:
    import onnx

    from netzip_mlflow.data import Split
    from netzip_mlflow.tasks import Task

__all__ = ["accuracy", "quantise"]

BATCH = 32
BINS, LEVELS = 512, 255  # of the entropy search; more bins take minutes


def quantise(
    model: onnx.ModelProto, split: Split, method: str, percentile: float, reduce_range: bool
) -> onnx.ModelProto:
    """A float graph in QDQ form: uint8 activations per tensor, int8 weights per channel.

    Biases stay float. `method` is minmax, entropy or percentile; the weights of `X` are then named
    `X_quantized`.
    """
    import onnx
    from onnxruntime import quantization as ort

    cut = method == "percentile"
    extra: dict[str, object] = {"QuantizeBias": False}
    extra |= {"CalibPercentile": percentile} if cut else {}
    with tempfile.TemporaryDirectory() as folder, quiet_quantiser():
        source, prepared, target = (Path(folder, n) for n in ("in.onnx", "pre.onnx", "out.onnx"))
        onnx.save(model, source)
        ort.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        if method == "entropy":
            extra["TensorQuantOverrides"] = _entropy_ranges(prepared, split)
        ort.quantize_static(
            str(prepared),
            str(target),
            _Reader(split),  # type: ignore[arg-type]  (its get_next is all that is used)
            quant_format=ort.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=ort.QuantType.QInt8,
            activation_type=ort.QuantType.QUInt8,
            calibrate_method=ort.CalibrationMethod.Percentile
            if cut
            else ort.CalibrationMethod.MinMax,
            calibration_providers=["CPUExecutionProvider"],
            extra_options=extra,
        )
        return onnx.load(target)


def accuracy(model: onnx.ModelProto, task: Task) -> float:
    """The task's primary accuracy on validation, in the runtime."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        onnx.save(model, file)
        session = runtimes.find().load(file)
        found = task.evaluate(session, "validation", batch=64, progress=lambda _what, _done: None)
    return found.metrics[f"accuracy/{task.primary}"]


def _entropy_ranges(model: Path, split: Split) -> dict[str, list[dict[str, np.float32]]]:
    """Range of each activation that loses least in relative entropy, as overrides.

    Not by `quantize_static` itself: it fixes 128 bins for 128 levels, which leaves one choice, the
    same as minmax.
    """
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
