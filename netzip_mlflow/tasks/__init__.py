"""The task protocol: what is solved, on which splits, and how well. Nothing else knows the task.

Stages, techniques, metrics and views speak to `Task` only; none asks which task it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from netzip_mlflow.errors import InputError, NetzipError, Problem, did_you_mean
from netzip_mlflow.factories import import_function
from netzip_mlflow.metrics import catalogue

if TYPE_CHECKING:
    import numpy as np
    import torch

    from netzip_mlflow.data import Changes, Split
    from netzip_mlflow.metrics import Metric
    from netzip_mlflow.recipe import DataSpec, Recipe
    from netzip_mlflow.runtimes import Session
    from netzip_mlflow.signature import OutputSpec

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
    "task_class",
]

TABLE = {"classification": "netzip_mlflow.tasks.classification:Classification"}
Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A deployable on one split: its raw outputs, (samples, ...) each, metrics under `accuracy/`,
    and the rows of a table by group of samples, where the task has groups."""

    split: str
    outputs: tuple[np.ndarray, ...]
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
    """One problem with its data: all that depends on what is solved. `task_base.TaskBase` has most
    of it ready.

    Attributes:
        name: in `netzip.json`.
        primary: the accuracy that P uses by default, a fraction, of which more is better; it is
            logged as ``accuracy/<primary>``.
        metrics: the records of all that it logs.
        shape: of one sample, channels first.
        outputs: what a network of the task answers.
        arguments: what the constructor of its network needs, such as `num_classes`.
        facts: what `netzip.json` says of its answers (JSON), such as names of classes.
        digest: of its data.
        sizes: samples of each split.
    """

    name: str
    primary: str
    metrics: tuple[Metric, ...]
    shape: tuple[int, ...]
    outputs: OutputSpec
    arguments: Mapping[str, Any]
    facts: Mapping[str, Any]
    digest: str
    sizes: Mapping[str, int]

    def split(self, name: str, *, final: bool = False) -> Split:
        """A split by name; `test` only with `final` and while nothing has sealed the task. Its
        targets are known to the task alone.

        Raises:
            SplitSealed: the test split was asked for by anything but the final evaluation.
        """
        ...

    def sealed(self) -> AbstractContextManager[None]:
        """While it lasts, nobody gets the test split: training and techniques run inside."""
        ...

    def augment(
        self, samples: torch.Tensor, targets: Any, changes: Changes
    ) -> tuple[torch.Tensor, Any]:
        """Samples, float32 (n, C, ...) on the CPU, and their targets (as the split has them) after
        changes."""
        ...

    def collate(self, targets: Any, device: str) -> Any:
        """Targets of a batch as `loss` takes them."""
        ...

    def golden(self, targets: Any) -> Mapping[str, np.ndarray]:
        """Targets as named arrays, for `golden.npz`; empty where nobody needs them there."""
        ...

    def loss(
        self, outputs: tuple[torch.Tensor, ...], targets: Any, label_smoothing: float
    ) -> torch.Tensor:
        """The training loss, a scalar; `targets` as `collate` gave them."""
        ...

    def imitate(
        self,
        outputs: tuple[torch.Tensor, ...],
        wanted: tuple[torch.Tensor, ...],
        temperature: float,
    ) -> torch.Tensor:
        """How far a student's outputs are from a teacher's, a scalar: a loss beside `loss`.

        Args:
            temperature: softens both, where that means something.
        """
        ...

    def differ(self, one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
        """How far two networks' outputs for the same samples are apart, (n,), 0 where equal; the
        first one's are what they should be."""
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
        """Paired on the same samples: `accuracy/drop_points` with its ends `_low` and `_high`, in
        points of the primary accuracy, at least."""
        ...


def open_task(name: str, spec: DataSpec, seed: int) -> Task:
    """A task with its data opened: a name of `TABLE`, or "module:Class" with a method `open`.

    Raises:
        InputError: there is no such class, it fails, or is not a whole task; and as its data set
            does.
    """
    cls = task_class(name)
    try:
        task = cls.open(spec, seed)
    except NetzipError:
        raise
    except Exception as error:
        if name in TABLE:
            raise
        what = f"{name} cannot be opened: {type(error).__name__}: {error}"
        raise InputError(Problem("task", what)) from error
    absent = [key for key in Task.__annotations__ if not hasattr(task, key)]
    if absent:
        what = f"{name} has no {', '.join(absent)}"
        raise InputError(Problem("task", what, "what netzip_mlflow.tasks.Task names"))
    return task


def task_class(name: str) -> Any:
    """The class of a task; its metrics' records become known.

    Raises:
        InputError: there is none of that name, or it cannot be imported.
    """
    if name not in TABLE and ":" not in name:
        hint = did_you_mean(name, TABLE)
        allowed = f"{', '.join(TABLE)}, or module:Class"
        raise InputError(Problem("task", f"unknown task {name!r}", allowed, hint))
    cls = import_function(TABLE.get(name, name), "task")
    absent = [key for key in ("name", "primary", "metrics", "open") if not hasattr(cls, key)]
    if not isinstance(cls, type) or absent:
        what = f"{name} has no {', '.join(absent)}" if absent else f"{name} is not a class"
        raise InputError(Problem("task", what, "a class as netzip_mlflow.tasks.task_base.TaskBase"))
    catalogue.add(cls.metrics, "task")
    return cls


def accuracies(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """Names of the metrics that a score may use: accuracies of which more is better."""
    return tuple(m.name for m in metrics if m.key.startswith("accuracy/") and m.better == "more")


def complete(recipe: Recipe) -> Recipe:
    """The recipe with the accuracy written out that its score uses."""
    accuracy = recipe.score.accuracy or task_class(recipe.task).primary
    score = recipe.score.model_copy(update={"accuracy": accuracy})
    return recipe.model_copy(update={"score": score})


def check(raw: Mapping[str, Any]) -> list[Problem]:
    """The task's name, and whether the task has the accuracy that the score wants."""
    name = raw.get("task", "classification")
    if not isinstance(name, str):
        return []  # the schema says so
    try:
        allowed = accuracies(task_class(name).metrics)
    except InputError as error:
        return list(error.problems)
    score = raw.get("score")
    wanted = score.get("accuracy") if isinstance(score, Mapping) else None
    if wanted is None or wanted in allowed:
        return []
    hint = did_you_mean(str(wanted), allowed)
    return [Problem("score.accuracy", f"{wanted!r} is not allowed", ", ".join(allowed), hint)]
