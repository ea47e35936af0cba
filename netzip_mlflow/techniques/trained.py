"""What techniques that train have in common: how they train, and who may teach."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import NetzipError, Problem
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import Range, parameter, unread
from netzip_mlflow.techniques.protocol import Technique

if TYPE_CHECKING:
    from netzip_mlflow.distillation import Teacher
    from netzip_mlflow.twin import Twin

__all__ = ["Taught", "Trained"]


@dataclass(frozen=True, kw_only=True)
class Trained(Technique):
    """Parameters of a training on the training split."""

    epochs: int = parameter(
        2, "passes over the training split", low=1, high=1000, search=Range(1, 6, log=True)
    )
    lr: float = parameter(
        0.01, "peak learning rate", low=1e-7, high=10.0, search=Range(3e-3, 0.1, log=True)
    )
    batch: int = parameter(64, "images a step", low=1, high=65536)
    optimizer: str = parameter("sgd", "update rule", choices=("sgd", "adamw"))
    schedule: str = parameter(
        "cosine", "learning rate over time", choices=("cosine", "onecycle", "constant")
    )
    weight_decay: float = parameter(5e-4, "L2 penalty", low=0.0, high=1.0)
    flip: bool = parameter(False, "augment: random horizontal flips")
    crop: int = parameter(0, "augment: random shifts, in pixels", low=0, high=64)
    views: int = parameter(
        0, "augmented views of each image, made once; 0: a new one each time", low=0, high=1000
    )

    @classmethod
    def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
        """What is wrong with a recipe's parameters."""
        found = super().problems(given, where)
        if not found and not (given.get("flip") or given.get("crop")):
            why = "and without augmentation all views are alike"
            found += unread(given, ["views"], where, why, "flip or crop beside it")
        return found

    @property
    def training_epochs(self) -> int:
        """Passes over the training split, all steps together: what a plan's time is made of."""
        return self.epochs

    def fit(
        self, twin: Twin, context: Context, teacher: Teacher | None, *, keep_start: bool = True
    ) -> Twin:
        """A trained copy: the best epoch on validation, the twin as it came being epoch 0 where
        `keep_start`.

        Raises:
            NetzipError: the loss became non-finite, or the teacher does not fit.
        """
        if context.untrained:
            return twin
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
        fitted = training.fit(
            twin,
            context.train,
            context.task,
            spec=spec,
            teacher=teacher,
            keep_start=keep_start,
            views=self.views,
            seed=context.seed,
            device=context.device,
            threads=context.threads,
            progress=context.progress,
            log=context.log,
        )
        return fitted.twin


@dataclass(frozen=True, kw_only=True)
class Taught(Trained):
    """A training with the uncompressed network as teacher, where it is wanted.

    With `teacher: baseline` the loss is alpha x imitation + (1 - alpha) x the task's loss, where
    imitation is the task's: T^2 x KL(teacher || student, at temperature T) of a classifier's scores
    (Hinton et al., arXiv 1503.02531, section 2). `features` adds
    attention transfer (Zagoruyko & Komodakis, arXiv 1612.03928): features / 2 x the squared
    distance of the normalised spatial attention maps, summed over the last common layer of each
    resolution, averaged over the images.
    """

    teacher: str | None = parameter(
        None, "distil from the uncompressed network", kind=str, choices=("baseline",)
    )
    temperature: float = parameter(4.0, "softens teacher and student alike", low=0.1, high=100.0)
    alpha: float = parameter(0.9, "weight of the teacher's term", low=0.0, high=1.0)
    features: float = parameter(
        0.0, "weight of attention transfer from the teacher; 0: off", low=0.0, high=1e4
    )

    @classmethod
    def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
        """What is wrong with a recipe's parameters."""
        found = super().problems(given, where)
        if not found and given.get("teacher") is None:
            keys = ("temperature", "alpha", *(["features"] if given.get("features") else []))
            found += unread(given, keys, where, "and no teacher", "teacher: baseline beside it")
        return found

    def train(self, twin: Twin, context: Context) -> Twin:
        """A trained copy, never worse on validation than the twin as it came.

        Raises:
            NetzipError: a teacher is wanted and there is none, or it does not fit; or the loss
                became non-finite.
        """
        from netzip_mlflow.distillation import Teacher

        self.check_teacher(twin, context)
        teacher = None
        if self.teacher is not None and context.teacher is not None:
            network = context.teacher.copy().network()  # training lays weights out anew
            teacher = Teacher(
                network, context.task.imitate, self.temperature, self.alpha, self.features
            )
        return self.fit(twin, context, teacher)

    def check_teacher(self, twin: Twin, context: Context) -> None:
        """Whether the teacher that is wanted is there and fits.

        Raises:
            NetzipError: it does not.
        """
        name = self.label().partition("(")[0]
        if self.teacher is None:
            if self.features:
                raise NetzipError(f"{name}: features: given without teacher: baseline")
            return
        if context.teacher is None:
            raise NetzipError(f"{name}: teacher: baseline, but the context has no teacher")
        both = [(each.outputs, each.facts) for each in (context.teacher, twin)]
        if both[0] != both[1]:
            (theirs, about), (ours, said) = both
            raise NetzipError(
                f"{name}: teacher: baseline answers {theirs} {_short(about)}, the network "
                f"{ours} {_short(said)}; allowed: a teacher that answers the same"
            )


def _short(facts: Mapping[str, Any]) -> str:
    return textwrap.shorten(str(dict(facts)), 60, placeholder=" ...")
