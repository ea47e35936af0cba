"""What candidates are made and measured with, and how several become one comparison."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netzip_mlflow import techniques, training
from netzip_mlflow.deployable import Exports
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics.catalogue import families
from netzip_mlflow.metrics.family import Conditions
from netzip_mlflow.runs import candidates, comparison
from netzip_mlflow.runs.further_runtimes import compare_runtimes
from netzip_mlflow.scoring import Basis
from netzip_mlflow.tracking import stopped

if TYPE_CHECKING:
    from netzip_mlflow.cache import StageCache
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runs.candidates import Candidate
    from netzip_mlflow.runs.job import Job
    from netzip_mlflow.scoring import Choice, Constraints
    from netzip_mlflow.tasks import Task

    Entries = Sequence[Mapping[str, Mapping[str, Any]]]
    Chains = Mapping[str, Entries]

__all__ = ["Bench", "Outcome", "context_of", "together"]


@dataclass(frozen=True, eq=False)
class Bench:
    """The job, the recipe with its task opened, exported graphs and cached stages."""

    job: Job
    recipe: Recipe
    task: Task
    exports: Exports = field(default_factory=Exports)
    cache: StageCache | None = None

    @functools.cached_property
    def conditions(self) -> Conditions:
        """How each model is measured; a recipe's own metric families take part.

        Raises:
            InputError: a family cannot be opened.
        """
        return Conditions(
            self.recipe.measure,
            self.recipe.seed,
            self.job.progress,
            self.task,
            families(self.recipe.measure.families),
        )

    @property
    def basis(self) -> Basis:
        """Of every score."""
        return Basis.from_spec(self.recipe.score, self.task.primary)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a compress run leaves behind: the baseline first, then the candidates."""

    experiment_id: str
    run_id: str
    candidates: tuple[Candidate, ...]
    choice: Choice


def together(bench: Bench, chains: Chains, origin: Candidate, limits: Constraints) -> Outcome:
    """Make candidates, time them together, compare, end their runs.

    Args:
        chains: a recipe's entries, by candidate.
        origin: the baseline, inspected and judged.
        limits: what each must keep to be the best.

    Raises:
        NetzipError: every candidate failed.
    """
    work, recipe = bench.job, bench.recipe
    made = [_candidate(bench, name, entries, origin) for name, entries in chains.items()]

    def good() -> list[Candidate]:
        left = [c for c in made if not c.error]
        if made and not left:
            raise NetzipError(f"every candidate failed; the first: {made[0].error}")
        return left

    timed = [origin, *good()]
    work.say(f"timing {len(timed)} models together")
    candidates.time_and_grade(work, timed, bench.conditions, bench.basis, limits)
    for each in timed:  # first: whatever becomes of the comparison, they are measured
        if not each.error:
            candidates.finish(each)
    measured = [c.measured for c in (origin, *good()) if c.measured is not None]
    compare_runtimes(work, measured, bench.conditions)
    choice = comparison.publish(work, [origin, *made], recipe, limits)
    return Outcome(work.run.experiment_id, work.run.id, (origin, *made), choice)


def context_of(bench: Bench, origin: Candidate) -> techniques.Context:
    """What the techniques of a recipe's chains may use."""
    train = bench.recipe.train
    return techniques.Context.of(
        bench.task,
        origin.twin,
        seed=bench.recipe.seed,
        exports=bench.exports,
        device=training.choose_device(train.device if train else "auto"),
        threads=(train.threads if train else None) or training.cores(),
        progress=bench.job.progress,
    )


def _candidate(bench: Bench, name: str, entries: Entries, origin: Candidate) -> Candidate:
    work = bench.job
    chain = techniques.chain(entries)
    label = techniques.label(chain)
    work.say(f"{name}: {label}")
    made = candidates.start(work, name, label, tags={"netzip.baseline": origin.run.id})
    made.run.log(params=dict(candidates.parameters(chain)))
    context = dataclasses.replace(context_of(bench, origin), log=made.epoch)
    assert origin.twin is not None  # noqa: S101 (the baseline has one)
    try:
        deployable = candidates.walk(made, chain, origin.twin, context, bench.cache, work.say)
        candidates.store(made, deployable, bench.task)
        candidates.inspect_and_judge(made, origin, bench.conditions)
    except Exception as error:  # a technique may be anyone's code; its run says what
        if (stop := stopped()) is not None:  # and this is what became of it in there
            raise stop from error
        candidates.fail(made, error)
        work.say(f"{name} failed: {made.error}")
    return made
