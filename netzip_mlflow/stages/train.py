"""The command `train`: the baseline only, measured and logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netzip_mlflow.runs import baseline, candidates
from netzip_mlflow.runs.bench import Bench
from netzip_mlflow.runs.further_runtimes import compare_runtimes
from netzip_mlflow.runs.job import Options, describe_recipe, job, open_tracker
from netzip_mlflow.scoring import Constraints
from netzip_mlflow.tasks import open_task

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runs.candidates import Candidate

__all__ = ["train"]


def train(recipe: Recipe, options: Options) -> Candidate:
    """Train a recipe's baseline, or take the one that the same inputs trained before.

    Raises:
        InputError: bad input, before any run exists.
        NetzipError: training diverged, or the network cannot be exported or measured.
    """
    tracker = open_tracker(options)
    task = open_task(recipe.task, recipe.data, recipe.seed)
    network = baseline.prepare(recipe, task)
    with job("train", recipe.name, options, tracker) as work:
        describe_recipe(work.run, recipe, task)
        bench = Bench(work, recipe, task)
        candidate = baseline.ready(bench, network)
        candidates.inspect_and_judge(candidate, None, bench.conditions)
        limits = Constraints.from_spec(recipe.score)
        candidates.time_and_grade(work, [candidate], bench.conditions, bench.basis, limits)
        candidates.finish(candidate)
        if candidate.measured is not None:
            compare_runtimes(work, [candidate.measured], bench.conditions)
        return candidate
