"""How long a search needs to reach what a naive one reaches: the figures of docs/search.md.

    python benchmarks/search_frugal.py --results results --trials 40 --seed 0 --seed 1 --seed 2 \
        --seed 3 --seed 4

The naive search draws chains at random from the same automatic space, trains every one to its end,
evaluates it on all of validation, times it beside the baseline, and keeps no cache. Ours ends when
it has reached the naive one's best, or has taken as long. Both make their own baseline, in a
process of their own, with an empty cache; the clock starts with the command. A seed's results that
lie in the folder already are read, not made again.

Prints Markdown: by seed the naive search's wall time and best feasible OCS, when that was reached
by either, and the ratio of ours to the naive wall time; below, its median. `--picture FILE` draws
both curves of the best feasible OCS against wall time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parents[1] / "recipes" / "digits.yaml"
Curve = list[tuple[float, float]]  # seconds, best feasible OCS from then on


def naive(seed: int, trials: int, store: str) -> Curve:
    """A random search in which everything is done."""
    import optuna

    from netzip_mlflow import measuring, techniques
    from netzip_mlflow import recipe as recipes
    from netzip_mlflow.errors import NetzipError
    from netzip_mlflow.runs import baseline, candidates
    from netzip_mlflow.runs.bench import Bench, context_of
    from netzip_mlflow.runs.job import Options, job, open_tracker
    from netzip_mlflow.scoring import Constraints
    from netzip_mlflow.stages.search.setup import space_of
    from netzip_mlflow.tasks import open_task

    begun, curve = time.monotonic(), Curve()
    recipe = recipes.load(RECIPE, [f"seed={seed}"])
    options = Options(store)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    task = open_task(recipe.task, recipe.data, recipe.seed)
    space = space_of(recipe, task.sizes["train"])
    network = baseline.prepare(recipe, task)
    with job("search", "naive", options, open_tracker(options)) as work:
        bench = Bench(work, recipe, task)
        origin = baseline.ready(bench, network)
        candidates.inspect_and_judge(origin, None, bench.conditions)
        context, limits = context_of(bench, origin), Constraints.from_spec(recipe.score)
        first, twin = origin.measured, origin.twin
        assert first is not None
        assert twin is not None
        for number in range(trials):
            chain = techniques.chain(space.suggest(study.ask()))
            label = techniques.label(chain)
            made = candidates.start(work, f"trial-{number}", label, kind="trial")
            try:
                made.file = candidates.walk(made, chain, twin, context).save(made.folder)
                found = measuring.inspect(made.name, made.file, bench.conditions)
                measuring.judge(found, first, bench.conditions, ("validation",))
                measuring.time_together([first, found], bench.conditions)
                measuring.grade(found, first, bench.basis, limits)
            except NetzipError as error:
                candidates.fail(made, error)
                continue
            made.run.log(found.metrics)
            candidates.finish(made)
            if found.metrics["validation/score/feasible"]:
                curve.append((time.monotonic() - begun, found.metrics["validation/score/ocs"]))
    return [*risen(curve), (time.monotonic() - begun, math.nan)]


def frugal(seed: int, seconds: float, enough: float, store: str) -> Curve:
    """Ours, by its command, until it has an OCS; the times are those of the study's database."""
    file = store.removeprefix("sqlite:///").replace("mlflow.db", "study.db")
    command = ["search", str(RECIPE), "--seed", str(seed), "--trials", "200", "--quiet"]
    command += ["--timeout", f"{seconds:.0f}s", "--study", "frugal"]
    command += ["--storage", f"sqlite:///{file}", "--tracking-uri", store]
    command += ["--set", "search.keep=1", "--set", "candidates={}"]
    begun = time.time()
    searching = subprocess.Popen([sys.executable, "-m", "netzip_mlflow", *command])
    while searching.poll() is None and not reached(found(file, begun), enough) < math.inf:
        time.sleep(2)
    searching.kill()
    searching.wait()
    return found(file, begun)


def found(file: str, begun: float) -> Curve:
    """The curve in a study's file, which is only read; empty as long as there is none."""
    import optuna
    import sqlalchemy

    from netzip_mlflow.search import records

    try:
        study = optuna.load_study(
            study_name="frugal", storage=f"sqlite:///file:{file}?mode=ro&uri=true"
        )
    except (sqlalchemy.exc.OperationalError, KeyError):
        return []
    return risen(
        [
            (t.datetime_complete.timestamp() - begun, t.user_attrs[records.OCS])
            for t in records.ended(study)
            if t.user_attrs[records.FEASIBLE] and t.datetime_complete
        ]
    )


def risen(found: Sequence[tuple[float, float]]) -> Curve:
    """Only what was better than everything before."""
    best, curve = -math.inf, Curve()
    for seconds, ocs in sorted(found):
        if ocs > best:
            best = ocs
            curve.append((seconds, ocs))
    return curve


def made(seed: int, trials: int, folder: Path) -> dict[str, Any]:
    """Both curves of a seed, from their files if they are there."""

    def kept(which: str, make: Callable[[], Curve]) -> Curve:
        file = folder / f"{which}-{trials}-{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(make()))
        return [(s, o) for s, o in json.loads(file.read_text())]

    *plain, (wall, _) = kept("naive", lambda: apart("naive", seed, folder, size=trials))
    enough = plain[-1][1]
    ours = kept("frugal", lambda: apart("frugal", seed, folder, size=wall, enough=enough))
    return {"naive": plain, "frugal": ours, "naive_s": wall}


def apart(which: str, seed: int, folder: Path, **options: float) -> Curve:
    """A search in a process and a store of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        one = ["--one", which, "--seed", str(seed), "--results", place]
        one += [part for name, value in options.items() for part in (f"--{name}", repr(value))]
        done = subprocess.run(
            [sys.executable, __file__, *one],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"NETZIP_CACHE": str(Path(place, "cache"))},
        )
    return [(s, o) for s, o in json.loads(done.stdout.splitlines()[-1])]


def reached(curve: Sequence[Sequence[float]], ocs: float) -> float:
    """When a curve reached an OCS, seconds; infinite where it did not."""
    return next((s for s, o in curve if o >= ocs), math.inf)


def table(seeds: Sequence[int], found: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["seed", "naive, s", "its best OCS", "reached by it, s", "by ours, s", "share", "ours"]
    lines, shares = [head, ["---"] * len(head)], []
    for seed, each in zip(seeds, found, strict=True):
        best, wall = each["naive"][-1][1], each["naive_s"]
        ours = reached(each["frugal"], best)
        shares.append(ours / wall)
        figures = [f"{wall:.0f}", f"{best:.2f}", f"{each['naive'][-1][0]:.0f}"]
        share = [f"{ours:.0f}", f"{ours / wall:.2f}"] if ours < math.inf else ["never", "-"]
        last = each["frugal"][-1][1] if each["frugal"] else math.nan
        lines.append([str(seed), *figures, *share, f"{last:.2f}"])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\nmedian share: {statistics.median(shares):.2f}"


def draw(seeds: Sequence[int], found: Sequence[dict[str, Any]], file: Path) -> None:
    """Both curves of every seed, a panel each; ours ends where it reached the naive best."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from netzip_mlflow.report.style import RC

    with mpl.rc_context(RC):
        figure = Figure(figsize=(1.9 * len(seeds) + 0.5, 2.9), layout="constrained")
        panels = figure.subplots(1, len(seeds), sharex=True, sharey=True, squeeze=False)[0]
        for axes, seed, each in zip(panels, seeds, found, strict=True):
            met = reached(each["frugal"], each["naive"][-1][1])
            ends = {"naive": each["naive_s"], "frugal": min(met, each["naive_s"])}
            for which, colour in (("naive", "#9aa5b1"), ("frugal", "#1f6f8b")):
                points = [p for p in each[which] if p[0] <= ends[which]]
                last = [(ends[which], points[-1][1])] if points else []
                seconds, ocs = zip(*points, *last, strict=True) if points else ((), ())
                axes.step(seconds, ocs, where="post", color=colour, label=which)
            if met < math.inf:
                axes.plot(met, dict(each["frugal"])[met], "o", color="#1f6f8b")
            axes.set(title=f"seed {seed}")
        panels[0].set(ylabel="best feasible OCS", xlim=(0, None), ylim=(0, None))
        figure.supxlabel("wall time, s")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
        figure.savefig(file, dpi=160)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, action="append", help="repeatable; default: 0")
    parser.add_argument("--trials", type=int, default=40, help="of the naive search")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of results")
    parser.add_argument("--picture", type=Path, help="a file for the curves")
    parser.add_argument("--one", choices=("naive", "frugal"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--enough", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    seeds = given.seed or [0]
    if given.one:
        store = f"sqlite:///{given.results.resolve()}/mlflow.db"
        if given.one == "naive":
            curve = naive(seeds[0], int(given.size), store)
        else:
            curve = frugal(seeds[0], given.size, given.enough, store)
        print(json.dumps(curve))
        return
    both = [made(seed, given.trials, given.results) for seed in seeds]
    print(table(seeds, both))
    if given.picture:
        draw(seeds, both, given.picture)


if __name__ == "__main__":
    main()
