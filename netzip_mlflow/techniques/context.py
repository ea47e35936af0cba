"""What a technique may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import InputError, Problem

if TYPE_CHECKING:
    import torch

    from netzip_mlflow.data import Split
    from netzip_mlflow.deployable import Exports
    from netzip_mlflow.tasks import Task
    from netzip_mlflow.twin import Twin

__all__ = ["Context"]


@dataclass(frozen=True, eq=False)
class Context:
    """All that a technique may use. No MLflow, and no test data: the task is sealed meanwhile.

    `untrained`: what is wanted is the size of the outcome, so that training is left out.
    """

    task: Task
    train: Split
    calibration: Split
    teacher: Twin | None
    exports: Exports
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    untrained: bool = False
    progress: Callable[[str, float], None] = lambda _what, _done: None
    log: Callable[[str, float, int], None] = lambda _key, _value, _step: None

    def validate(self, network: torch.nn.Module) -> float:
        """The task's primary accuracy of a network on validation, a fraction."""
        return self.task.validate(network)

    @classmethod
    def of(
        cls, task: Task, teacher: Twin | None = None, *, seed: int = 0, **changes: Any
    ) -> Context:
        """A context for a task; `teacher` is the uncompressed twin, for distillation.

        Raises:
            InputError: the teacher does not take the task's samples.
        """
        if teacher is not None and teacher.input.shape != task.shape:
            what = f"the network takes samples of {teacher.input.shape}"
            raise InputError(Problem("teacher", what, f"{task.shape}, as the data are"))
        from netzip_mlflow.deployable import Exports
        from netzip_mlflow.training import choose_device, cores

        given = {
            "device": choose_device("auto"),
            "threads": cores(),
            "exports": Exports(),
        } | changes
        return cls(
            task=task,
            train=task.split("train"),
            calibration=task.split("calibration"),
            teacher=teacher,
            seed=seed,
            **given,
        )
