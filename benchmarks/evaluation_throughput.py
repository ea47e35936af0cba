"""How fast the test set is evaluated, against a bare ONNX Runtime loop over the same batches.

    NETZIP_DATA=/path/to/data python benchmarks/evaluation_throughput.py

NETZIP_DATA names the folder of recipes/resnet20_cifar10.yaml (cifar10.npz and
resnet20_cifar10.safetensors). Two files are measured: that recipe's FP32 baseline and its int8
candidate, which is the harder one, since the runtime leaves less time to hide in. `Task.evaluate`
cuts batches out of uint8 images, converts them to float32, runs the session, keeps the scores and
computes every accuracy and the table per class. The bare loop has its float32 batches made
beforehand and does nothing but call the runtime, in a session of its own with one thread, as ours.
The two take turns in one process, first one then the other going first; each round gives one ratio
of the two, and the median over rounds counts.

Prints one line of JSON. `ratio` is images per second, evaluation / bare loop, the lower of the two
files; the target is at least 0.95. `ratios` holds every round: where they scatter, the machine was
busy.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from netzip_mlflow import recipe as recipes
from netzip_mlflow import tasks
from netzip_mlflow.deployable import deploy
from netzip_mlflow.runtimes.onnxruntime import load
from netzip_mlflow.stages.train import prepare
from netzip_mlflow.tasks import Task
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.ptq import PTQ

RECIPE = Path(__file__).parents[1] / "recipes" / "resnet20_cifar10.yaml"
ROUNDS = 6


def main() -> None:
    """Both files, one line."""
    recipe = recipes.load(RECIPE)
    task = tasks.open_task(recipe.task, recipe.data, recipe.seed)
    network = prepare(recipe, task)
    context = Context.of(task, network, seed=recipe.seed)
    files = {"fp32": deploy(network, context), "int8": PTQ().apply(network, context)}
    batch = recipe.measure.evaluation_batch
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, deployable in files.items():
            seconds[name] = compared(deployable.save(Path(folder, name)), task, batch)
    images = task.sizes["test"]
    ratios = {
        name: [bare / ours for ours, bare in zip(each["evaluation"], each["bare"], strict=True)]
        for name, each in seconds.items()
    }
    line = {
        "benchmark": "evaluation_throughput",
        "ratio": round(min(map(statistics.median, ratios.values())), 4),
        "ratios": {name: [round(r, 3) for r in each] for name, each in ratios.items()},
        "images_per_second": {
            name: {way: round(images / statistics.median(s), 1) for way, s in each.items()}
            for name, each in seconds.items()
        },
        "images": images,
        "batch": batch,
    }
    print(json.dumps(line))


def compared(path: Path, task: Task, batch: int) -> dict[str, list[float]]:
    """Seconds of every pass over the test set, the evaluation's and the bare loop's."""
    session = load(path, threads=1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    bare = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    batches = [images for images, _ in task.split("test", final=True).batches(batch)]

    def evaluation() -> None:
        task.evaluate(session, "test", batch=batch, progress=lambda _what, _done: None, final=True)

    def loop() -> None:
        for images in batches:
            bare.run(["scores"], {"images": images})

    ways: dict[str, Callable[[], None]] = {"evaluation": evaluation, "bare": loop}
    session.run(np.zeros((1, *task.shape), np.float32))
    bare.run(["scores"], {"images": batches[0]})
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name in sorted(ways, reverse=bool(number % 2)):
            start = time.perf_counter()
            ways[name]()
            taken[name].append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    main()
