"""What a chain costs whose beginning another chain has made before, with and without the cache.

    python benchmarks/stage_cache.py

ResNet-8 on the embedded digits, untrained: what is learned does not matter here. The first chain
prunes in steps, fine-tunes and ends in int8; the second begins alike and ends in float16. In this
order, in one process: the second without a cache; the first into an empty cache; the second from
it. Each starts with no exported graph in memory, and the files must be the same.

Prints one line of JSON. `ratio` is the wall time of the second chain with the cache / without, its
export to ONNX included, which no cache saves; `float_ratio` that of its float techniques alone.

Seen on two cores of a busy machine, twice: ratio 0.17 and 0.22, of float techniques alone 0.008
and 0.013 (0.09 s and 0.30 s instead of 10.6 s and 23.5 s; the rest is the export).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGINNING = [
    {"prune_l1": {"ratio": 0.7, "steps": 3, "epochs": 1}},
    {"finetune": {"epochs": 2, "lr": 0.02}},
]


def walk(chain: Sequence[Any], origin: Any, context: Any, cache: Any) -> tuple[str, float, float]:
    """The digest of what ships, seconds in all, seconds of the float techniques alone."""
    start, inside = time.perf_counter(), 0.0
    stands = origin
    for technique in chain:
        if cache is None:
            stands = technique.apply(stands, context)
        else:
            stands = cache.apply(technique, stands, context).result
        if technique.traits.kind == "float":
            inside = time.perf_counter() - start
    return stands.digest, time.perf_counter() - start, inside


def main() -> None:
    """Run the three walks, print the shares."""
    import dataclasses

    import torch

    from netzip_mlflow import techniques
    from netzip_mlflow.cache import StageCache
    from netzip_mlflow.deployable import Exports
    from netzip_mlflow.recipe import DataSpec
    from netzip_mlflow.tasks import open_task
    from netzip_mlflow.techniques import Context
    from netzip_mlflow.techniques.finetune import Finetune
    from netzip_mlflow.twin import Architecture, InputSpec, Twin

    task = open_task("classification", DataSpec(name="digits", test=0.2), 0)
    architecture = Architecture("name", "resnet8", task.arguments)
    torch.manual_seed(0)
    channels = task.shape[0]
    spec = InputSpec(task.shape, (0.5,) * channels, (0.5,) * channels)
    model = architecture.build(task.shape, task.outputs)
    origin = Twin(model, spec, task.outputs, architecture, task.facts)
    context = Context.of(task, origin, device="cpu")
    first, second = (techniques.chain([*BEGINNING, {end: {}}]) for end in ("ptq", "half"))

    def fresh() -> Context:
        return dataclasses.replace(context, exports=Exports())

    # what torch imports at the first training and the first export is not timed
    walk((Finetune(epochs=1), second[-1]), origin, fresh(), None)

    with tempfile.TemporaryDirectory() as folder:
        cache = StageCache(Path(folder))
        plain, without, computing = walk(second, origin, fresh(), None)
        walk(first, origin, fresh(), cache)
        cached, with_cache, reading = walk(second, origin, fresh(), cache)
        stored = sum(file.stat().st_size for file in cache.folder.rglob("*") if file.is_file())
    assert plain == cached, "a hit must ship the same file"
    line = {
        "benchmark": "stage_cache",
        "ratio": round(with_cache / without, 4),
        "float_ratio": round(reading / computing, 4),
        "without_s": round(without, 2),
        "with_s": round(with_cache, 2),
        "float_without_s": round(computing, 2),
        "float_with_s": round(reading, 3),
        "stored_bytes": stored,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
