"""How fast the test set is evaluated, against a bare ONNX Runtime loop over the same batches.

    NETZIP_DATA=/path/to/data python benchmarks/evaluation_throughput.py

NETZIP_DATA names the folder of recipes/resnet20_cifar10.yaml (cifar10.npz and
resnet20_cifar10.safetensors). Two files are measured: that recipe's FP32 baseline and its int8
candidate, which is the harder one, since the runtime leaves less time to hide in. `Task.evaluate`
cuts batches out of uint8 images, converts them to float32, runs the session, keeps the scores and
computes every accuracy and the table per class. The bare loop has its float32 batches made
beforehand and does nothing but call the runtime, in a session of its own with one thread, as ours.

The two take turns in one process: the test set is passed through in pieces, each piece by both,
now one first, now the other. Each piece gives one ratio of the two, and the median counts: a
machine that is busy for a while then slows both alike.

Prints one line of JSON. `ratio` is images per second, evaluation / bare loop, the lower of the two
files; the target is at least 0.95. `quartiles` are those of the pieces' ratios: where they lie far
apart, the machine was busy.

Seen on two cores of an AMD EPYC without VNNI: 0.990 (fp32 0.991 [0.959, 1.019], int8 0.990
[0.965, 1.008]).
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import netzip_mlflow  # noqa: F401  (first: it keeps ONNX Runtime from reporting to its maker)

# isort: split
import numpy as np
import onnxruntime

from netzip_mlflow import recipe as recipes
from netzip_mlflow import runtimes
from netzip_mlflow.data import Dataset, load_source, open_source
from netzip_mlflow.runs.baseline import prepare
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.techniques.ptq import PTQ

RECIPE = Path(__file__).parents[1] / "recipes" / "resnet20_cifar10.yaml"
PIECES, PASSES = 16, 3


def main() -> None:
    """Both files, one line."""
    recipe = recipes.load(RECIPE)
    data = open_source(load_source(recipe.data), recipe.data, recipe.seed, np.asarray)
    task = Classification(data)
    network = prepare(recipe, task)
    context = Context.of(task, network, seed=recipe.seed)
    files = {"fp32": deploy(network, context), "int8": PTQ().apply(network, context)}
    batch = recipe.measure.evaluation_batch
    line: dict[str, object] = {"benchmark": "evaluation_throughput", "ratio": None}
    medians = []
    with tempfile.TemporaryDirectory() as folder:
        for name, deployable in files.items():
            ours, bare = compared(deployable.save(Path(folder, name)), data, batch)
            low, median, high = np.percentile(bare / ours, [25, 50, 75])
            medians.append(median)
            passed = PASSES * task.sizes["test"]
            line[name] = {
                "ratio": round(median, 4),
                "quartiles": [round(low, 4), round(high, 4)],
                "evaluation_images_per_s": round(passed / ours.sum(), 1),
                "bare_images_per_s": round(passed / bare.sum(), 1),
            }
    line |= {"ratio": round(min(medians), 4), "images": task.sizes["test"], "batch": batch}
    print(json.dumps(line))


def compared(path: Path, data: Dataset, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds per piece of the test set, (pieces x passes,): the evaluation's, the bare loop's."""
    session = runtimes.find().load(path, threads=1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    bare = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    test = data.splits["test"]
    taken: dict[str, list[float]] = {"evaluation": [], "bare": []}
    warm, _ = next(test.batches(batch))
    session.run(warm)
    bare.run(["scores"], {"images": warm})
    for number in range(PASSES * PIECES):
        indices = np.array_split(np.arange(len(test)), PIECES)[number % PIECES]
        piece = test.take(indices)
        task = Classification(dataclasses.replace(data, splits={**data.splits, "test": piece}))
        batches = [images for images, _ in piece.batches(batch)]

        def evaluation(task: Classification = task) -> None:
            task.evaluate(session, "test", batch=batch, final=True)

        def loop(batches: list[np.ndarray] = batches) -> None:
            for images in batches:
                bare.run(["scores"], {"images": images})

        ways: dict[str, Callable[[], None]] = {"evaluation": evaluation, "bare": loop}
        for name in sorted(ways, reverse=bool(number % 2)):
            start = time.perf_counter()
            ways[name]()
            taken[name].append(time.perf_counter() - start)
    return np.array(taken["evaluation"]), np.array(taken["bare"])


if __name__ == "__main__":
    main()
