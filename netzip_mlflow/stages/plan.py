"""The plan of a recipe, for `--dry-run`: what would be made, and about how long it takes here."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow import data, models, search, techniques, training
from netzip_mlflow.recipe import SearchSpec
from netzip_mlflow.runs.baseline import prepare
from netzip_mlflow.runs.job import chosen
from netzip_mlflow.signature import outputs_of
from netzip_mlflow.tasks import open_task

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.tasks import Task
    from netzip_mlflow.techniques import Technique
    from netzip_mlflow.twin import Twin

__all__ = ["Plan", "plan", "plan_search"]

# Seconds seen on two cores with small networks; the rest of the estimate is timed now.
START, EXPORT, PER_MODEL, REPORT = 8.0, 4.0, 2.5, 6.0
STEPS = 3


@dataclass(frozen=True)
class Plan:
    """`steps` in order, each with its seconds; a rough estimate: training and evaluation are
    extrapolated from a few steps timed on this machine, the rest are typical values. `missing` says
    which data and weights are not here; without data, how long most steps take is unknown (NaN).
    `varies`: what a search chooses among, by name."""

    name: str
    steps: tuple[tuple[str, float], ...]
    missing: tuple[str, ...] = ()
    varies: tuple[tuple[str, str], ...] = ()

    @property
    def seconds(self) -> float:
        """All steps together; NaN where one is unknown."""
        return sum(seconds for _, seconds in self.steps)

    def as_object(self) -> dict[str, Any]:
        """For `--json`; unknown seconds are null."""
        steps = [{"step": step, "seconds": _rounded(seconds)} for step, seconds in self.steps]
        return {
            "name": self.name,
            "steps": steps,
            "seconds": _rounded(self.seconds),
            "missing": list(self.missing),
            **({"varies": dict(self.varies)} if self.varies else {}),
        }

    def as_text(self) -> str:
        """The sum, what is missing, and a line per step."""
        is_certain = not math.isnan(self.seconds)
        total = (
            f"about {self.seconds:.0f} s" if is_certain else "how long is unknown without the data"
        )
        absent = [f"not here: {what}" for what in self.missing]
        lines = [
            f"{'?' if math.isnan(seconds) else f'{seconds:.0f}':>8} s  {step}"
            for step, seconds in self.steps
        ]
        lines += [f"  {name}: {values}" for name, values in self.varies]
        return "\n".join([f"{self.name}: {total}", *absent, *lines])


def _rounded(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds, 1)


def plan(recipe: Recipe, only: tuple[str, ...] = ()) -> Plan:
    """What `compress` would do. Reads the data and builds the network, as far as they are here;
    downloads nothing, leaves nothing behind.

    Raises:
        InputError: as `compress` would, before any run.
    """
    names = chosen(list(recipe.candidates), only)
    pace, missing = _pace(recipe)
    steps = [*_beginning(recipe, pace)]
    for name in names:
        chain = techniques.chain(recipe.candidates[name])
        steps.append((f"{name}: {techniques.label(chain)}", pace.of(chain)))
    steps += _end(recipe, len(names) + 1)
    return Plan(recipe.name, tuple(steps), missing)


def plan_search(recipe: Recipe, space: search.Space) -> Plan:
    """What `search` would do; most of its trials are skipped or ended early, so that the time for
    them is a limit.

    Raises:
        InputError: as `search` would, before any run.
    """
    spec = recipe.search or SearchSpec()
    pace, missing = _pace(recipe)
    chains = [techniques.chain(entries) for entries in recipe.candidates.values()]
    starts = [techniques.chain(e) for e in (search.starts() if spec.space == "auto" else ())]
    each = [pace.of(chain) for chain in (*chains, *starts)]
    trials = spec.trials * (sum(each) / len(each) if each else math.nan)
    limit = spec.timeout if spec.timeout is not None else math.inf
    what = f"at most {spec.trials} trials by {spec.sampler}"
    final = f"the best {spec.keep} and {len(chains)} candidates on test"
    steps = [
        *_beginning(recipe, pace),
        (what, limit if math.isnan(trials) and math.isfinite(limit) else min(trials, limit)),
        (final, sum(map(pace.of, chains)) + spec.keep * pace.of(())),
        *_end(recipe, len(chains) + spec.keep + 1),
    ]
    varies = tuple((name, _among(values)) for name, values in space.domains().items())
    return Plan(recipe.name, tuple(steps), missing, varies)


def _among(values: object) -> str:
    return " | ".join(values) if isinstance(values, tuple) else str(values)


def _pace(recipe: Recipe) -> tuple[_Pace, tuple[str, ...]]:
    """How fast this machine is, and what is not here."""
    no_data, no_weights = data.missing(recipe.data), models.missing(recipe.model)
    pace = UNKNOWN if no_data else _measured(recipe, weights=not no_weights)
    return pace, tuple(str(problem) for problem in (no_data, no_weights) if problem)


def _beginning(recipe: Recipe, pace: _Pace) -> Iterator[tuple[str, float]]:
    yield "start, read data", START
    if recipe.train is not None:
        what = f"train {recipe.model.name or 'the network'}, {recipe.train.epochs} epochs"
        yield what, recipe.train.epochs * pace.epoch
    yield "export and evaluate the baseline", EXPORT + pace.of(())


def _end(recipe: Recipe, models: int) -> Iterator[tuple[str, float]]:
    yield f"time {models} models together, at most", recipe.measure.latency.max_seconds
    if others := recipe.measure.runtimes[1:]:
        yield f"run them in {', '.join(others)} too", recipe.measure.latency.max_seconds
    yield "compare, report, views", REPORT


@dataclass(frozen=True)
class _Pace:
    """Seconds of an epoch of training, and of judging one model on validation and test."""

    epoch: float
    judging: float

    def of(self, chain: Sequence[Technique]) -> float:
        """Of a candidate, from its making to its accuracy."""
        epochs = sum(technique.training_epochs for technique in chain)
        changed = any(t.traits.kind == "float" for t in chain)
        return PER_MODEL + self.judging + epochs * self.epoch + (EXPORT if changed else 0.0)


UNKNOWN = _Pace(math.nan, math.nan)


def _measured(recipe: Recipe, weights: bool) -> _Pace:
    """On this machine, with random weights where the recipe's own are not here."""
    task = open_task(recipe.task, recipe.data, recipe.seed)
    if not weights:
        bare = recipe.model.model_copy(update={"weights": None})
        recipe = recipe.model_copy(update={"model": bare})
    train_step, forward = _timed_steps(prepare(recipe, task), task, recipe)
    judged = len(task.split("validation")) + task.sizes["test"]
    return _Pace(len(task.split("train")) * train_step, judged * forward)


def _timed_steps(network: Twin, task: Task, recipe: Recipe) -> tuple[float, float]:
    """Seconds per sample of a training step and of a forward pass, the least of a few."""
    import torch

    size = recipe.train.batch if recipe.train else 64
    samples, targets = next(task.split("train").batches(size))
    pixels, wanted = torch.from_numpy(samples), task.collate(targets, "cpu")
    module = network.copy().network()
    stepped, passed = [], []
    with training.seeded(recipe.seed, recipe.train.threads if recipe.train else None):
        for _ in range(STEPS):
            start = time.perf_counter()
            task.loss(outputs_of(module(pixels)), wanted, 0.0).backward()
            stepped.append((time.perf_counter() - start) / len(samples))
            start = time.perf_counter()
            with torch.inference_mode():
                module(pixels)
            passed.append((time.perf_counter() - start) / len(samples))
    return min(stepped), min(passed)
