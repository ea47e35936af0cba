"""Distillation: a student of another architecture, taught by the network as it stands."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from netzip_mlflow.errors import InputError, NetzipError, Problem
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import Range, parameter
from netzip_mlflow.techniques.protocol import Traits
from netzip_mlflow.techniques.trained import Trained

if TYPE_CHECKING:
    from netzip_mlflow.twin import Architecture, Twin

__all__ = ["Distil"]


@dataclass(frozen=True)
class Distil(Trained):
    """Trains a student from scratch on the answers of the incoming twin: alpha x imitation +
    (1 - alpha) x the task's loss, where imitation is the task's: T^2 x KL(teacher || student, at
    temperature T) of a classifier's scores (Hinton et al., arXiv 1503.02531, section 2). The epoch
    that is best on validation is kept.

    The chain goes on with the student: its architecture takes the place of the twin's, so edits and
    masks of before are gone and nothing has to be replayed. Input and outputs are the twin's.
    """

    name: ClassVar[str] = "distil"
    traits: ClassVar[Traits] = Traits(
        family="distillation",
        kind="float",
        stage="structure",
        summary="a student network of your choice, taught by the chain so far",
        needs_training=True,
        searched=False,
    )
    student: str = parameter("resnet8", "network by name, or module:function")
    arguments: str | None = parameter(
        None, "of the student, as YAML or JSON, such as {width: 8}", kind=str
    )
    _: KW_ONLY
    epochs: int = parameter(10, "passes over the training split", low=1, high=1000)
    lr: float = parameter(
        0.05, "peak learning rate", low=1e-7, high=10.0, search=Range(1e-3, 0.3, log=True)
    )
    temperature: float = parameter(4.0, "softens teacher and student alike", low=0.1, high=100.0)
    alpha: float = parameter(0.9, "weight of the teacher's term", low=0.0, high=1.0)

    @classmethod
    def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
        """What is wrong with a recipe's parameters: bounds, then who the student is."""
        found = super().problems(given, where)
        if found:
            return found
        if "student" in given:
            found += _student_problems(given["student"], f"{where}.student")
        try:
            _read(given.get("arguments"))
        except ValueError as error:
            what = f"{given['arguments']!r} is not allowed: {error}"
            found.append(Problem(f"{where}.arguments", what, "a mapping, such as {width: 8}"))
        return found

    def label(self) -> str:
        return f"distil({self.student})"

    def apply(self, twin: Twin, context: Context) -> Twin:
        """The trained student, with the twin's input, outputs and chain.

        Raises:
            NetzipError: there is no such student, it does not take these samples or give these
                outputs, or its loss became non-finite.
        """
        from netzip_mlflow import training
        from netzip_mlflow.distillation import Teacher

        architecture = self._architecture(context.task.arguments)
        with training.seeded(context.seed, context.threads):
            try:
                model = architecture.build(twin.input.shape, twin.outputs)
            except InputError as error:
                why = "; ".join(str(dataclasses.replace(p, where="")) for p in error.problems)
                raise NetzipError(f"distil: student {self.student}: {why}") from error
        student = twin.replace(model=model, architecture=architecture, edits=(), masks={}, grids={})
        teacher = Teacher(twin.copy().network(), context.task.imitate, self.temperature, self.alpha)
        fitted = self.fit(student, context, teacher, keep_start=False)
        return fitted.replace(chain=(*twin.chain, self.label()))

    def _architecture(self, needed: Mapping[str, Any]) -> Architecture:
        """The student's; `needed`: the task's arguments."""
        from netzip_mlflow.twin import Architecture

        try:
            arguments = _read(self.arguments)
        except ValueError as error:
            raise NetzipError(f"distil: arguments: {error}; allowed: a mapping") from error
        kind = "factory" if ":" in self.student else "name"
        return Architecture(kind, self.student, {**needed, **arguments})


def _student_problems(student: str, where: str) -> list[Problem]:
    from netzip_mlflow import models
    from netzip_mlflow.factories import import_function

    if ":" not in student:
        found = models.check({"model": {"name": student}})
        return [dataclasses.replace(problem, where=where) for problem in found]
    try:
        import_function(student, where)  # now, and not when the baseline has been trained
    except InputError as error:
        return list(error.problems)
    return []


def _read(arguments: str | None) -> dict[str, Any]:
    """The student's keywords.

    Raises:
        ValueError: the text is no YAML mapping that JSON can hold, as a saved twin must.
    """
    from netzip_mlflow.recipe import syntax

    if arguments is None:
        return {}
    found = syntax.parse(arguments)
    json.dumps(found, allow_nan=False)
    if not isinstance(found, dict):
        raise ValueError(f"it is {type(found).__name__}")  # noqa: TRY004 (as all here)
    return found
