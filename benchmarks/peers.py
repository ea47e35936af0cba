"""Int8 files of other tools from the same network, calibration images and splits as ours.

    python benchmarks/peers.py RECIPE BASELINE.onnx FOLDER

writes, each as the tool leaves it, FOLDER/ort.onnx (onnxruntime.quantization.quantize_static: QDQ,
per channel, uint8 activations x int8 weights, min-max), FOLDER/ort-reduced.onnx (the same with its
reduce_range option) and FOLDER/nncf.onnx (nncf.quantize, default preset; needs `pip install nncf`).
Beside each stands NAME-stripped.onnx: the same graph after the stripping and naming pass that every
file of ours gets, so that a difference in size that remains is not bookkeeping. Then score all of
them beside ours, in one interleaved measurement:

    netzip measure FOLDER/*.onnx OURS.onnx --baseline BASELINE.onnx --recipe RECIPE

docs/peers.md shows what was seen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
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


def main(recipe: str, baseline: Path, folder: Path) -> None:
    """Write the six files."""
    loaded = recipes.load(recipe)
    split = open_task(loaded.task, loaded.data, loaded.seed).split("calibration")
    folder.mkdir(parents=True, exist_ok=True)
    for name, reduced in (("ort", False), ("ort-reduced", True)):
        ort.quantize_static(
            baseline,
            folder / f"{name}.onnx",
            Reader(images for images, _ in split.batches(BATCH)),
            quant_format=ort.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduced,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
        )
    import nncf

    samples = [{"images": images[:1]} for images, _ in split.batches(1)]
    quantised = nncf.quantize(onnx.load(baseline), nncf.Dataset(samples), subset_size=len(samples))
    onnx.save(quantised, folder / "nncf.onnx")
    for name in ("ort", "ort-reduced", "nncf"):
        stripped = compact(onnx.load(folder / f"{name}.onnx"))
        onnx.save(stripped, folder / f"{name}-stripped.onnx")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
