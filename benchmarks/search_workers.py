"""How many trials two processes finish in the time of one, with the same threads each.

    python benchmarks/search_workers.py --seconds 240

A search of `recipes/digits.yaml` whose every trial trains for an epoch, none of which is skipped:
first with one worker, then with two, one thread each, in stores of their own without a cache.
Counted are the trials that ended within so many seconds after the first one was begun; that the
second worker starts later, and makes its own copy of the baseline, is part of its cost.

Prints one line of JSON. `ratio` is the number with two workers / with one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "recipes" / "digits.yaml"
SPACE = "[{finetune: {epochs: 1, lr: {low: 0.0001, high: 0.001, log: true}}}, {ptq: {}}]"
CHANGES = {
    "candidates": "{}",
    "train.threads": "1",
    "measure.threads": "1",
    "score.max_drop_points": "100",
    "search.sampler": "random",
    "search.keep": "1",
    "search.space": SPACE,
}
BASELINE_S = 60.0  # at most, for what is done before the first trial


def ended(workers: int, seconds: float) -> int:
    """The number of trials that a search ends within some seconds of its first one's start."""
    import optuna

    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/study.db"
        command = ["search", str(RECIPE), "--no-cache", "--quiet", "--workers", str(workers)]
        command += ["--trials", "2000", "--timeout", f"{seconds + BASELINE_S:.0f}s"]
        command += ["--study", "s", "--storage", storage]
        command += ["--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
        command += [part for key, value in CHANGES.items() for part in ("--set", f"{key}={value}")]
        subprocess.run(
            [sys.executable, "-m", "netzip_mlflow", *command],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        trials = optuna.load_study(study_name="s", storage=storage).trials
    first = min(t.datetime_start for t in trials if t.datetime_start)
    done = [t.datetime_complete for t in trials if t.state.name == "COMPLETE"]
    return sum(d is not None and d <= first + timedelta(seconds=seconds) for d in done)


def main() -> None:
    """Run both, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=240.0)
    seconds = parser.parse_args().seconds
    one, two = (ended(workers, seconds) for workers in (1, 2))
    line = {
        "benchmark": "search_workers",
        "ratio": round(two / one, 3),
        "one": one,
        "two": two,
        "seconds": seconds,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
