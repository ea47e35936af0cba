"""What techniques that train have in common: how they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.techniques import Context, Range, parameter

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["Trained"]


@dataclass(frozen=True)
class Trained:
    """Parameters of a training, and the training itself.

    With `teacher: baseline` the loss is alpha x T^2 x KL(teacher || student, at temperature T) +
    (1 - alpha) x cross entropy (Hinton et al., arXiv 1503.02531, section 2).
    """

    epochs: int = parameter(2, "passes over the training split", low=1, high=1000)
    lr: float = parameter(
        0.01, "peak learning rate", low=1e-7, high=10.0, search=Range(1e-4, 0.1, log=True)
    )
    batch: int = parameter(64, "images a step", low=1, high=65536)
    optimizer: str = parameter("sgd", "update rule", choices=("sgd", "adamw"))
    schedule: str = parameter(
        "cosine", "learning rate over time", choices=("cosine", "onecycle", "constant")
    )
    weight_decay: float = parameter(5e-4, "L2 penalty", low=0.0, high=1.0)
    flip: bool = parameter(False, "augment: random horizontal flips")
    crop: int = parameter(0, "augment: random shifts, in pixels", low=0, high=64)
    teacher: str | None = parameter(
        None, "distil from the uncompressed network", kind=str, choices=("baseline",)
    )
    temperature: float = parameter(4.0, "softens teacher and student alike", low=0.1, high=100.0)
    alpha: float = parameter(0.9, "weight of the teacher's term", low=0.0, high=1.0)

    def train(self, twin: Twin, context: Context) -> Twin:
        """A trained copy: the best epoch on validation, the twin as it came being epoch 0.

        Raises:
            NetzipError: a teacher is wanted and there is none, or the loss became non-finite.
        """
        from netzip_mlflow import training
        from netzip_mlflow.recipe import Augment, TrainSpec

        spec = TrainSpec(
            epochs=self.epochs,
            lr=self.lr,
            batch=self.batch,
            optimizer=self.optimizer,  # type: ignore[arg-type]  (choices say the same)
            schedule=self.schedule,  # type: ignore[arg-type]
            weight_decay=self.weight_decay,
            augment=Augment(flip=self.flip, crop=self.crop),
        )
        teacher = None
        if self.teacher:
            if context.teacher is None:
                raise NetzipError("teacher: baseline, but the context has no teacher")
            network = context.teacher.copy().network()  # training lays weights out anew
            teacher = training.Teacher(network, self.temperature, self.alpha)
        fitted = training.fit(
            twin,
            context.train,
            spec=spec,
            loss=context.task.loss,
            validate=context.validate,
            teacher=teacher,
            keep_start=True,
            seed=context.seed,
            device=context.device,
            threads=context.threads,
            progress=context.progress,
            log=context.log,
        )
        return fitted.twin
