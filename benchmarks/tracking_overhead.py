"""The share of a compress run's wall time that goes into tracking and bookkeeping.

    NETZIP_DATA=/path/to/data python benchmarks/tracking_overhead.py

NETZIP_DATA names the folder of recipes/resnet20_cifar10.yaml (cifar10.npz and
resnet20_cifar10.safetensors), which is run as it stands, in this process, into a sqlite store of
its own that exists already, as it does from anybody's second run on. Nothing in the package is
changed: from outside, these are wrapped with a timer: `Outbox.send`, through which every write to
MLflow passes (runs, metrics, tags, artifacts, logged models, saved views); opening the store with
the reaper; the search for an earlier baseline; the wait for unsent writes at the end. A call
within another one is counted once.

Prints one line of JSON. `share` is that time / the stage's wall time; the target is under 0.05.
`share_untimed` leaves the latency window (up to `measure.latency.max_seconds`) out of the wall
time, which otherwise makes any share small. `share_with_comparison` adds choosing, drawing the
pictures and writing the report. Importing mlflow (1 to 2 s) comes before and is in none of them.

Seen on two cores of an AMD EPYC, twice: 0.014 and 0.021 (0.020 and 0.025 without the latency
window, 0.043 and 0.058 with the comparison); 92 writes in about 3 s.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
RECIPE = Path(__file__).parents[1] / "recipes" / "resnet20_cifar10.yaml"


class Timer:
    """Seconds spent in wrapped functions, the outermost of nested calls only."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0
        self._inside = False

    def wrap(self, owner: Any, name: str) -> None:
        """Replace `owner.name` by itself with this timer around it."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside = True
            self.calls += 1
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start
                self._inside = False

        setattr(owner, name, timed)


def main() -> None:
    """Make the store, run the recipe into it, print the shares."""
    from mlflow import MlflowClient

    from netzip_mlflow import recipe as recipes
    from netzip_mlflow.metrics import latency
    from netzip_mlflow.runs import comparison
    from netzip_mlflow.runs.job import Options
    from netzip_mlflow.stages import compress
    from netzip_mlflow.tracking import models, outbox, runs

    tracking, with_comparison, timing = Timer(), Timer(), Timer()
    for owner, name in (
        (outbox.Outbox, "send"),
        (outbox.Outbox, "flush"),
        (runs.Tracker, "__init__"),
        (models, "stored_baselines"),
    ):
        tracking.wrap(owner, name)
        with_comparison.wrap(owner, name)
    with_comparison.wrap(comparison, "publish")
    timing.wrap(latency, "interleave")
    recipe = recipes.load(RECIPE)
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/mlflow.db"
        os.chdir(folder)  # artifacts go beside the database
        MlflowClient(store).search_experiments()
        start = time.perf_counter()
        compress.compress(recipe, Options(store))
        wall = time.perf_counter() - start
    line = {
        "benchmark": "tracking_overhead",
        "share": round(tracking.seconds / wall, 4),
        "share_untimed": round(tracking.seconds / (wall - timing.seconds), 4),
        "share_with_comparison": round(with_comparison.seconds / wall, 4),
        "tracking_seconds": round(tracking.seconds, 2),
        "writes": tracking.calls,
        "wall_seconds": round(wall, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
