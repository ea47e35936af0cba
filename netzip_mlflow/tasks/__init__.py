"""The task protocol: what is solved, on which splits, and how well. Nothing else knows the task.

Stages, techniques, metrics and views speak to `Task` only; none asks which task it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from netzip_mlflow.errors import Problem, did_you_mean
from netzip_mlflow.metrics import catalogue

if TYPE_CHECKING:
    import numpy as np
    import torch

    from netzip_mlflow.data import Split
    from netzip_mlflow.metrics import Metric
    from netzip_mlflow.recipe import DataSpec, Recipe
    from netzip_mlflow.runtimes import Session

__all__ = [
    "TABLE",
    "Comparison",
    "Evaluation",
    "OutOfReach",
    "Task",
    "accuracies",
    "check",
    "complete",
    "open_task",
]

TABLE = {"classification": "netzip_mlflow.tasks.classification:Classification"}
Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A deployable on one split: the runtime's raw outputs, and metrics under `accuracy/`."""

    split: str
    outputs: np.ndarray
    metrics: Mapping[str, float]
    per_class: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A candidate against the baseline on the same samples (`accuracy/drop_points`, ...)."""

    metrics: Mapping[str, float]
    per_class: tuple[Mapping[str, Any], ...] = field(default=())


class OutOfReach(Exception):
    """An evaluation was ended: `accuracy` is that of the `seen` samples, `at_best` that of all if
    everything else is right."""

    def __init__(self, accuracy: float, at_best: float, seen: int) -> None:
        super().__init__(f"accuracy at most {at_best:.4f} after {seen} samples")
        self.accuracy, self.at_best, self.seen = accuracy, at_best, seen


class Task(Protocol):
    """One problem with its data; `primary` is the accuracy that P uses by default, `sizes` counts
    the samples of each split, `metrics` are the records of all that it logs."""

    name: str
    primary: str
    metrics: tuple[Metric, ...]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    digest: str
    sizes: Mapping[str, int]

    def split(self, name: str, *, final: bool = False) -> Split:
        """A split by name; `test` only with `final` and while nothing has sealed the task.

        Raises:
            SplitSealed: the test split was asked for by anything but the final evaluation.
        """
        ...

    def sealed(self) -> AbstractContextManager[None]:
        """While it lasts, nobody gets the test split: training and techniques run inside."""
        ...

    def loss(
        self, scores: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        """The training loss, a scalar."""
        ...

    def validate(self, network: torch.nn.Module) -> float:
        """Primary accuracy of a torch network on validation: chooses among epochs, nothing else."""
        ...

    def evaluate(
        self,
        session: Session,
        split: str,
        *,
        batch: int,
        progress: Progress,
        final: bool = False,
        at_least: float = 0.0,
    ) -> Evaluation:
        """Run a deployable over a split and judge its outputs.

        Raises:
            OutOfReach: the primary accuracy will be below `at_least`, whatever the samples to come
                bring; where a task can know that before the end.
        """
        ...

    def compare(self, baseline: Evaluation, candidate: Evaluation, seed: int) -> Comparison:
        """Paired on the same samples."""
        ...


def open_task(name: str, spec: DataSpec, seed: int) -> Task:
    """A task with its data opened; its metrics' records become known. Raises InputError as the data
    set does."""
    return _task_class(name).open(spec, seed)


def accuracies(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """Names of the metrics that a score may use: accuracies of which more is better."""
    return tuple(m.name for m in metrics if m.key.startswith("accuracy/") and m.better == "more")


def complete(recipe: Recipe) -> Recipe:
    """The recipe with the accuracy written out that its score uses."""
    accuracy = recipe.score.accuracy or _task_class(recipe.task).primary
    score = recipe.score.model_copy(update={"accuracy": accuracy})
    return recipe.model_copy(update={"score": score})


def check(raw: Mapping[str, Any]) -> list[Problem]:
    """The task's name, and whether the task has the accuracy that the score wants."""
    name = raw.get("task", "classification")
    if not isinstance(name, str):
        return []  # the schema says so
    if name not in TABLE:
        hint = did_you_mean(str(name), TABLE)
        return [Problem("task", f"unknown task {name!r}", ", ".join(TABLE), hint)]
    allowed = accuracies(_task_class(name).metrics)
    score = raw.get("score")
    wanted = score.get("accuracy") if isinstance(score, Mapping) else None
    if wanted is None or wanted in allowed:
        return []
    hint = did_you_mean(str(wanted), allowed)
    return [Problem("score.accuracy", f"{wanted!r} is not allowed", ", ".join(allowed), hint)]


def _task_class(name: str) -> Any:
    module, _, attribute = TABLE[name].partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    catalogue.add(cls.metrics, "task")
    return cls
