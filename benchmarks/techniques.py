"""What every technique does to ResNet-20 on CIFAR-10: the table of docs/techniques.md.

    python benchmarks/techniques.py --seed 0 --seed 1 --results results

Runs `recipes/resnet20_cifar10_techniques.yaml` once per seed (one to two hours each on two cores;
`--again NAME` makes only these candidates with the seeds after the first) and prints the table in
Markdown. The folder of results holds a tracking store and a stage cache of their own: after an
interruption the same command goes on where it was, and the times are those of the work when it was
done. Results that lie there already are read, not made again, if recipe, code and choice of
candidates were the same.
The first seed fills the table; the others show what of it is chance. Drops are on the test split,
with 95 % intervals; the latency ratio is that of one measurement of all candidates together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from netzip_mlflow.cache.sources import package_digest

RECIPE = Path(__file__).parents[1] / "recipes" / "resnet20_cifar10_techniques.yaml"
HEAD = ("candidate", "drop, points", "smaller", "faster", "CHATS", "int8 layers", "OCS", "seconds")
Metrics = Mapping[str, float]


def made(seed: int, folder: Path, only: Sequence[str]) -> dict[str, Metrics]:
    """Metrics by candidate, those of the baseline first."""
    made_from = [RECIPE.read_text(), package_digest(), *only]
    digest = hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:12]
    file = folder / f"seed-{seed}-{digest}.json"
    if not file.exists():
        command = ["compress", str(RECIPE), "--seed", str(seed), "--json"]
        command += ["--tracking-uri", f"sqlite:///{folder.resolve()}/mlflow.db"]
        command += [part for name in only for part in ("--only", name)]
        start = "from netzip_mlflow.cli import main; main()"
        found = subprocess.run(
            [sys.executable, "-c", start, *command],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            env=os.environ | {"NETZIP_CACHE": str(folder.resolve() / "cache")},
        )
        file.write_text(found.stdout)
    candidates = json.loads(file.read_text())["candidates"]
    return {c["name"]: c["metrics"] for c in candidates if c["status"] == "FINISHED"}


def drop(metrics: Metrics) -> str:
    """The test drop in points with its interval."""
    key = "accuracy/drop_points"
    shown = [f"{metrics[k]:.2f}" for k in (key, f"{key}_low", f"{key}_high")]
    return "{} [{}, {}]".format(*shown).replace("-", "−")


def row(name: str, metrics: Metrics, others: Sequence[Metrics | None]) -> list[str]:
    """One line; `others`: the same candidate with other seeds, None where it was not made."""
    its = "ratio/its"
    ratio = "{:.2f} [{:.2f}, {:.2f}]".format(
        *(metrics[k] for k in (its, f"{its}_low", f"{its}_high"))
    )
    return [
        f"`{name}`",
        drop(metrics),
        f"{metrics['ratio/C']:.2f}x",
        ratio,
        f"{metrics['ratio/S']:.2f}x",
        f"{metrics['speed/int8_layers']:.0f} of {metrics['speed/layers']:.0f}",
        f"{metrics['score/ocs']:.2f}".replace("-", "−"),
        f"{metrics['compress/seconds']:.0f}",
        *("" if other is None else drop(other) for other in others),
    ]


def table(seeds: Sequence[int], found: Sequence[Mapping[str, Metrics]]) -> str:
    """Markdown, a row per candidate of the first seed."""
    head = [*HEAD, *(f"drop, seed {seed}" for seed in seeds[1:])]
    rows = [
        row(name, metrics, [other.get(name) for other in found[1:]])
        for name, metrics in found[0].items()
        if name != "baseline"
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, action="append", help="repeatable; default: 0")
    parser.add_argument("--only", action="append", default=[], help="these candidates; repeatable")
    parser.add_argument("--again", action="append", help="these with further seeds; repeatable")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of results")
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    first, *others = seeds = given.seed or [0]
    found = [made(first, given.results, given.only)]
    found += [made(seed, given.results, given.again or given.only) for seed in others]
    print(table(seeds, found))


if __name__ == "__main__":
    main()
