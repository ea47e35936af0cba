"""Two real processes in one folder: no harm, equal results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROCESS = """
import json
import sys
from pathlib import Path

sys.path[:0] = [sys.argv[1], sys.argv[2]]
import torch
from conftest import tiny_images
from netzip_mlflow.cache import StageCache
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.techniques.prune_random import PruneRandom
from netzip_mlflow.twin import Architecture, InputSpec, Twin

torch.set_num_threads(1)
x, y = tiny_images(64, seed=1)
task = Classification.of({"x_train": x, "y_train": y}, test=0.2, calibration=8)
architecture = Architecture("factory", "tiny_networks:tiny", {"num_classes": 4, "width": 8})
torch.manual_seed(0)
origin = Twin(
    architecture.build(task.shape, task.outputs), InputSpec(task.shape, (0.4,) * 3, (0.2,) * 3),
    task.outputs,
    architecture,
)
context = Context.of(task, origin, device="cpu", threads=1)
print("ready", flush=True)
sys.stdin.readline()
notes, made = [], []
for limit in sys.argv[4:]:
    cache = StageCache(Path(sys.argv[3], limit), int(limit), frozenset({architecture.name}))
    for turn in range(3):
        for step in range(6):
            pruned = cache.apply(PruneL1(0.1 + step / 10), origin, context, notes.append).result
            again = cache.apply(PruneRandom(0.9), pruned, context, notes.append).result
            made.append(again.digest())
print(json.dumps([made, notes]))
"""


def test_two_processes_in_one_folder(tmp_path: Path, user_code: Path) -> None:
    """At the same time, on the same keys; with the small limit entries vanish all along."""
    limits = (10**8, 60_000)
    command = [sys.executable, "-c", PROCESS, user_code, user_code.parent, tmp_path, *limits]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen([*map(str, command)], text=True, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0], "the same results"
    digests, notes = json.loads(said[0][0])
    assert notes == []
    assert digests == 6 * digests[:6]
    assert len(set(digests)) == 6
    for limit in limits:
        folder = tmp_path / str(limit)
        left = sorted(p.name for p in folder.iterdir())
        assert [name for name in left if name.startswith(".")] == []
        sizes = [sum(f.stat().st_size for f in (folder / name).iterdir()) for name in left]
        assert sum(sizes) <= limit
        assert (len(left) == 12) == (limit == limits[0])
