"""Int8 files of other tools from the same network, calibration images and splits as ours.

    python benchmarks/peers.py RECIPE BASELINE.onnx FOLDER

writes, each as the tool leaves it, FOLDER/ort.onnx (onnxruntime.quantization.quantize_static: QDQ,
per channel, uint8 activations x int8 weights, min-max), FOLDER/ort-reduced.onnx (the same with its
reduce_range option), FOLDER/nncf.onnx (nncf.quantize, default preset; needs `pip install nncf`) and
FOLDER/nncf-control.onnx (nncf.quantize_with_accuracy_control on validation, within the recipe's
max_drop_points, biases corrected the slower, more accurate way). None of them trains.

Beside each stands NAME-stripped.onnx: the same graph after the stripping and naming pass that every
file of ours gets, so that a difference in size that remains is not bookkeeping. Then score all of
them beside ours, in one interleaved measurement:

    netzip measure FOLDER/*.onnx OURS.onnx --baseline BASELINE.onnx --recipe RECIPE

docs/peers.md shows what was seen.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import netzip_mlflow  # noqa: F401  (first: it keeps ONNX Runtime from reporting to its maker)

# isort: split
import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization as ort

from netzip_mlflow import recipe as recipes
from netzip_mlflow.deployable import compact
from netzip_mlflow.tasks import open_task

BATCH = 32


class Reader(ort.CalibrationDataReader):
    """Calibration batches as ONNX Runtime's calibrators take them."""

    def __init__(self, batches: Iterator[np.ndarray]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def accuracy(model: onnx.ModelProto, items: Iterable[Any]) -> float:
    """Top-1 of an ONNX model on (images, labels)."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    right = total = 0
    for images, labels in items:
        (scores,) = session.run(None, {"images": images})
        right += int((scores.argmax(1) == labels).sum())
        total += len(labels)
    return right / total


def main(recipe: str, baseline: Path, folder: Path) -> None:
    """Write the files, and say how long each took."""
    import nncf

    loaded = recipes.load(recipe)
    task = open_task(loaded.task, loaded.data, loaded.seed)
    split = task.split("calibration")
    folder.mkdir(parents=True, exist_ok=True)

    def static(name: str, *, reduced: bool) -> onnx.ModelProto:
        place = folder / f"{name}.onnx"
        ort.quantize_static(
            baseline,
            place,
            Reader(images for images, _ in split.batches(BATCH)),
            quant_format=ort.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduced,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
        )
        return onnx.load(place)

    samples = [{"images": images[:1]} for images, _ in split.batches(1)]
    calibration, size = nncf.Dataset(samples), len(samples)

    def controlled() -> onnx.ModelProto:
        batches = [*task.split("validation").batches(1)]
        return nncf.quantize_with_accuracy_control(
            onnx.load(baseline),
            calibration,
            nncf.Dataset(batches, lambda item: {"images": item[0]}),
            accuracy,
            max_drop=loaded.score.max_drop_points / 100,
            subset_size=size,
            fast_bias_correction=False,
        )

    makers = {
        "ort": lambda: static("ort", reduced=False),
        "ort-reduced": lambda: static("ort-reduced", reduced=True),
        "nncf": lambda: nncf.quantize(onnx.load(baseline), calibration, subset_size=size),
        "nncf-control": controlled,
    }
    for name, make in makers.items():
        begun = time.monotonic()
        made = make()
        print(f"{name}: {time.monotonic() - begun:.1f} s")
        if not name.startswith("ort"):  # those have written theirs
            onnx.save(made, folder / f"{name}.onnx")
        onnx.save(compact(made), folder / f"{name}-stripped.onnx")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
