"""The main job: train if needed, make every candidate, measure, score, compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netzip_mlflow import techniques, training
from netzip_mlflow.cache import StageCache
from netzip_mlflow.deployable import Exports
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.scoring import Constraints
from netzip_mlflow.stages import candidates, compare
from netzip_mlflow.stages.job import Job, Options, chosen, describe_recipe, job, open_tracker
from netzip_mlflow.stages.train import baseline, prepare
from netzip_mlflow.tasks import open_task
from netzip_mlflow.tracking import stopped

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.scoring import Choice
    from netzip_mlflow.stages.candidates import Candidate
    from netzip_mlflow.tasks import Task

__all__ = ["Outcome", "compress", "context_of", "together"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a compress run leaves behind: the baseline first, then the candidates."""

    experiment_id: str
    run_id: str
    candidates: tuple[Candidate, ...]
    choice: Choice


def compress(recipe: Recipe, options: Options, only: tuple[str, ...] = ()) -> Outcome:
    """Run a recipe. One candidate's failure does not stop the others.

    Raises:
        InputError: bad input, before any run exists.
        NetzipError: the baseline failed, or every candidate did.
    """
    names = chosen(list(recipe.candidates), only)
    cache = StageCache.open() if options.cache else None
    tracker = open_tracker(options)
    task = open_task(recipe.task, recipe.data, recipe.seed)
    network = prepare(recipe, task)
    with job("compress", recipe.name, options, tracker) as work:
        describe_recipe(work.run, recipe, task)
        exports = Exports()
        origin = baseline(work, recipe, task, network, exports)
        candidates.inspect_and_judge(work, origin, None, recipe, task)
        limits = Constraints.from_spec(recipe.score)
        return together(work, names, origin, recipe, task, exports, cache, limits)


def together(
    work: Job,
    names: Sequence[str],
    origin: Candidate,
    recipe: Recipe,
    task: Task,
    exports: Exports,
    cache: StageCache | None,
    limits: Constraints,
) -> Outcome:
    """Make the recipe's candidates of those names, time them together, compare, end their runs.

    Args:
        origin: the baseline, inspected and judged.
        limits: what each must keep to be the best.

    Raises:
        NetzipError: every candidate failed.
    """
    made = [_candidate(work, name, origin, recipe, task, exports, cache) for name in names]
    good = [c for c in made if not c.error]
    if made and not good:
        raise NetzipError(f"every candidate failed; the first: {made[0].error}")
    work.say(f"timing {len(good) + 1} models together")
    found = candidates.time_and_grade(work, [origin, *good], recipe, limits)
    choice = compare.publish(work, [origin, *made], recipe, found, limits)
    for each in (origin, *good):
        candidates.finish(each)
    return Outcome(work.run.experiment_id, work.run.id, (origin, *made), choice)


def context_of(
    work: Job, recipe: Recipe, task: Task, origin: Candidate, exports: Exports
) -> techniques.Context:
    """What the techniques of a recipe's chains may use."""
    train = recipe.train
    return techniques.Context.of(
        task,
        origin.twin,
        seed=recipe.seed,
        exports=exports,
        device=training.choose_device(train.device if train else "auto"),
        threads=(train.threads if train else None) or training.cores(),
        progress=work.progress,
    )


def _candidate(
    work: Job,
    name: str,
    origin: Candidate,
    recipe: Recipe,
    task: Task,
    exports: Exports,
    cache: StageCache | None,
) -> Candidate:
    chain = techniques.chain(recipe.candidates[name])
    label = techniques.label(chain)
    work.say(f"{name}: {label}")
    made = candidates.start(work, name, label, tags={"netzip.baseline": origin.run.id})
    made.run.log(params=dict(candidates.parameters(chain)))
    context = dataclasses.replace(context_of(work, recipe, task, origin, exports), log=made.epoch)
    assert origin.twin is not None  # noqa: S101 (the baseline has one)
    try:
        deployable = candidates.walk(made, chain, origin.twin, context, cache, work.say)
        candidates.store(made, deployable, task)
        candidates.inspect_and_judge(work, made, origin, recipe, task)
    except Exception as error:  # a technique may be anyone's code; its run says what
        if (stop := stopped()) is not None:  # and this is what became of it in there
            raise stop from error
        candidates.fail(made, error)
        work.say(f"{name} failed: {made.error}")
    return made
