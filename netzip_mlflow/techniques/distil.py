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
    """Trains a student from scratch on the soft targets of the incoming twin: alpha x T^2 x
    KL(teacher || student, at temperature T) + (1 - alpha) x cross entropy (Hinton et al.,
    arXiv 1503.02531, section 2). The epoch that is best on validation is kept.

    The chain goes on with the student: its architecture takes the place of the twin's, so edits and
    masks of before are gone and nothing has to be replayed. Input and classes are the twin's.
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
        """The trained student, with the twin's input, classes and chain.

        Raises:
            NetzipError: there is no such student, it does not take these images or give these
                classes, or its loss became non-finite.
        """
        from netzip_mlflow import training
        from netzip_mlflow.distillation import Teacher
        from netzip_mlflow.twin import Twin

        architecture = self._architecture()
        with training.seeded(context.seed, context.threads):
            try:
                model = architecture.build(len(twin.classes), twin.input.shape)
            except InputError as error:
                why = "; ".join(str(dataclasses.replace(p, where="")) for p in error.problems)
                raise NetzipError(f"distil: student {self.student}: {why}") from error
        student = Twin(model, twin.input, twin.classes, architecture, chain=twin.chain)
        teacher = Teacher(twin.copy().network(), self.temperature, self.alpha)
        fitted = self.fit(student, context, teacher, keep_start=False)
        return fitted.replace(chain=(*twin.chain, self.label()))

    def _architecture(self) -> Architecture:
        from netzip_mlflow.twin import Architecture

        try:
            arguments = _read(self.arguments)
        except ValueError as error:
            raise NetzipError(f"distil: arguments: {error}; allowed: a mapping") from error
        return Architecture("factory" if ":" in self.student else "name", self.student, arguments)


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
