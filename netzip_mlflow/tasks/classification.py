"""Classification: one label a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.metrics import Metric, accuracy, fidelity
from netzip_mlflow.metrics.scores import DROP
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.tasks import Comparison, Evaluation
from netzip_mlflow.tasks.task_base import TaskBase

if TYPE_CHECKING:
    import torch

    from netzip_mlflow.data import Changes, Dataset, Part, Source, Split
    from netzip_mlflow.recipe import DataSpec

__all__ = ["Classification"]


class Classification(TaskBase):
    """See `netzip_mlflow.tasks.Task`. The output `scores` holds logits (n, classes); targets are
    labels, int64 (n,); the primary accuracy is top-1."""

    name = "classification"
    primary = "top1"
    metrics: tuple[Metric, ...] = (*accuracy.METRICS, DROP, *fidelity.METRICS)

    predict: ClassVar[str] = """\
for scores in answers[0]:
    print(described["classes"][scores.argmax()])
"""

    def __init__(self, data: Dataset) -> None:
        super().__init__(data)
        self.classes = data.classes
        self.outputs = OutputSpec.of(scores=(len(data.classes),))
        self.arguments = {"num_classes": len(data.classes)}
        self.facts = {"classes": list(data.classes)}

    @classmethod
    def cut(cls, source: Source, spec: DataSpec, seed: int) -> Classification:
        """Raises InputError: labels and classes do not fit together, or a split lacks a class."""
        from netzip_mlflow.data import open_source

        _require_labels(source)
        data = open_source(source, spec, seed, strata=np.asarray)
        _require_classes(data.splits, data.classes)
        return cls(data)

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, np.ndarray],
        *,
        validation: float = 0.2,
        test: float | None = None,
        calibration: float = 256,
        seed: int = 0,
    ) -> Classification:
        """A task from arrays x_train, y_train (and x_test, y_test; else `test` is cut from train).

        Images are uint8 (n, H, W, C) or (n, H, W), labels integers (n,).

        Raises:
            InputError: as the data set `npz` does.
        """
        from netzip_mlflow.data.arrays import from_arrays
        from netzip_mlflow.recipe import DataSpec

        spec = DataSpec(
            factory="arrays:given", validation=validation, test=test, calibration=calibration
        )
        return cls.cut(from_arrays(arrays, name="arrays", groups=None), spec, seed)

    def augment(
        self, samples: torch.Tensor, targets: Any, changes: Changes
    ) -> tuple[torch.Tensor, Any]:
        return changes.applied(samples), targets

    def loss(
        self, outputs: tuple[torch.Tensor, ...], targets: Any, label_smoothing: float
    ) -> torch.Tensor:
        from torch.nn import functional

        self.outputs.require(outputs, len(targets), "the network")
        return functional.cross_entropy(outputs[0], targets, label_smoothing=label_smoothing)

    def imitate(
        self,
        outputs: tuple[torch.Tensor, ...],
        wanted: tuple[torch.Tensor, ...],
        temperature: float,
    ) -> torch.Tensor:
        """T^2 KL(teacher_T || student_T).

        Source: Hinton et al., arXiv 1503.02531, section 2.

        Raises:
            InputError: the teacher knows other classes.
        """
        from torch.nn import functional

        self.outputs.require(wanted, len(outputs[0]), "the teacher")
        soft, hard = (
            functional.log_softmax(scores / temperature, dim=1) for (scores,) in (wanted, outputs)
        )
        divergence = functional.kl_div(hard, soft, reduction="batchmean", log_target=True)
        return temperature**2 * divergence

    def differ(self, one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
        """KL(one || other) in nats."""
        before, after = (_log_softmax(scores.astype(np.float64)) for (scores,) in (one, other))
        return (np.exp(before) * (before - after)).sum(axis=1)

    def golden(self, targets: Any) -> Mapping[str, np.ndarray]:
        return {"labels": targets}

    def credit(self, outputs: Sequence[np.ndarray], targets: Any) -> np.ndarray:
        return outputs[0].argmax(1) == targets

    def figures(self, outputs: Sequence[np.ndarray], targets: Any) -> Mapping[str, float]:
        return accuracy.classification(outputs[0], targets)

    def per_class(self, outputs: Sequence[np.ndarray], targets: Any) -> list[dict[str, Any]]:
        return accuracy.per_class(outputs[0], targets, self.classes)

    def compare(self, baseline: Evaluation, candidate: Evaluation, seed: int) -> Comparison:
        drop = super().compare(baseline, candidate, seed)
        labels = np.asarray(self._splits[candidate.split].targets)
        change = fidelity.fidelity(baseline.outputs[0], candidate.outputs[0], labels)
        rows = [
            {**c, "recall_change_points": 100 * (c["recall"] - o["recall"])}
            for o, c in zip(baseline.per_class, candidate.per_class, strict=True)
        ]
        metrics = {f"fidelity/{key}": value for key, value in change.items()}
        return Comparison({**drop.metrics, **metrics}, tuple(rows))


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _require_labels(source: Source) -> None:
    problems: list[Problem] = []
    if len(source.classes) < 2:
        problems.append(Problem("data", f"has {len(source.classes)} classes", "2 or more"))
    for name, part in source.parts.items():
        problems += _label_problems(f"part {name!r}", part, len(source.classes))
    if problems:
        raise InputError(problems, source.name)


def _label_problems(where: str, part: Part, classes: int) -> list[Problem]:
    labels = part.targets
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        given = getattr(labels, "dtype", type(labels).__name__), getattr(labels, "shape", "")
        return [Problem(where, f"labels are {given[0]} {given[1]}", "int64 of shape (n,)")]
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if not len(outside):
        return []
    first = outside[0]
    what = f"{len(outside)} labels outside the classes, the first is {labels[first]} at {first}"
    return [Problem(where, what, f"0 to {classes - 1}")]


def _require_classes(splits: Mapping[str, Split], classes: tuple[str, ...]) -> None:
    """Every class must be in every split but calibration, which is a part of train."""
    problems = []
    for name in ("test", "validation", "train"):
        missing = np.setdiff1d(np.arange(len(classes)), np.asarray(splits[name].targets))
        if len(missing):
            named = ", ".join(f"{classes[c]!r} ({c})" for c in missing[:5])
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            hint = "take a larger part, or remove the class from the data"
            what = f"{name} has no sample of class {named}{more}"
            problems.append(Problem("data", what, hint=hint))
    if problems:
        raise InputError(problems)
