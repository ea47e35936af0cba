"""The main job: train if needed, make every candidate, measure, score, compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netzip_mlflow.cache import StageCache
from netzip_mlflow.runs import baseline, candidates
from netzip_mlflow.runs.bench import Bench, Outcome, together
from netzip_mlflow.runs.job import Options, chosen, describe_recipe, job, open_tracker
from netzip_mlflow.scoring import Constraints
from netzip_mlflow.tasks import open_task

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe

__all__ = ["compress"]


def compress(recipe: Recipe, options: Options, only: tuple[str, ...] = ()) -> Outcome:
    """Run a recipe. One candidate's failure does not stop the others.

    Raises:
        InputError: bad input, before any run exists.
        NetzipError: the baseline failed, or every candidate did.
    """
    names = chosen(list(recipe.candidates), only)
    cache = StageCache.open(allow=recipe.code()) if options.cache else None
    tracker = open_tracker(options)
    task = open_task(recipe.task, recipe.data, recipe.seed)
    network = baseline.prepare(recipe, task)
    with job("compress", recipe.name, options, tracker) as work:
        describe_recipe(work.run, recipe, task)
        bench = Bench(work, recipe, task, cache=cache)
        origin = baseline.ready(bench, network)
        candidates.inspect_and_judge(origin, None, bench.conditions)
        chains = {name: recipe.candidates[name] for name in names}
        return together(bench, chains, origin, Constraints.from_spec(recipe.score))
