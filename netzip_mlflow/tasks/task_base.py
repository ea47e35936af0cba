"""What tasks share: sealed splits, defaults, and an accuracy that is a mean over samples."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from netzip_mlflow.errors import InputError, NetzipError, SplitSealed
from netzip_mlflow.signature import OutputSpec, outputs_of
from netzip_mlflow.statistics import bootstrap_drop, bootstrap_mean_drop, mcnemar
from netzip_mlflow.tasks import Comparison, Evaluation, OutOfReach

if TYPE_CHECKING:
    import torch

    from netzip_mlflow.data import Changes, Dataset, Source, Split
    from netzip_mlflow.metrics import Metric
    from netzip_mlflow.recipe import DataSpec
    from netzip_mlflow.runtimes import Session

__all__ = ["TaskBase"]

VALIDATION_BATCH = 250


class TaskBase(abc.ABC):
    """See `netzip_mlflow.tasks.Task`. A subclass gives `name`, `primary`, `metrics`, `outputs`,
    `loss`, `imitate` and `differ`, and, where its primary accuracy is a mean over samples,
    `credit`: validation, evaluation and comparison then follow; else it defines those three.

    `predict` ends the `predict.py` of an exported model of ours: it prints `answers`, one array for
    each of the `session`'s outputs, and may read `described`, which is `netzip.json`.
    """

    name: ClassVar[str]
    primary: ClassVar[str]
    metrics: tuple[Metric, ...]
    predict: ClassVar[str] = """\
for output, values in zip(session.get_outputs(), answers):
    print(output.name, values.tolist())
"""
    outputs: OutputSpec
    arguments: Mapping[str, Any] = {}
    facts: Mapping[str, Any] = {}

    def __init__(self, data: Dataset) -> None:
        self.shape = data.shape
        self.digest = data.digest
        self.sizes = {name: len(split) for name, split in data.splits.items()}
        self._splits = data.splits
        self._seals = 0

    @classmethod
    def open(cls, spec: DataSpec, seed: int) -> Self:
        """Open the data set of a recipe.

        Raises:
            InputError: it cannot be had, is not what the task needs, or cannot be cut.
        """
        from netzip_mlflow.data import load_source

        return cls.cut(load_source(spec), spec, seed)

    @classmethod
    def cut(cls, source: Source, spec: DataSpec, seed: int) -> Self:
        """Of a source that is already there. A task whose samples are not all alike gives
        `open_source` their strata."""
        from netzip_mlflow.data import open_source

        return cls(open_source(source, spec, seed))

    def split(self, name: str, *, final: bool = False) -> Split:
        if name == "test" and (self._seals or not final):
            raise SplitSealed(
                "the test split is for the final evaluation only; training, calibration and "
                "selection use train, calibration and validation"
            )
        return self._splits[name]

    @contextlib.contextmanager
    def sealed(self) -> Iterator[None]:
        self._seals += 1
        try:
            yield
        finally:
            self._seals -= 1

    def augment(
        self,
        samples: torch.Tensor,  # noqa: ARG002 (a default, here and below)
        targets: Any,  # noqa: ARG002
        changes: Changes,  # noqa: ARG002
    ) -> tuple[torch.Tensor, Any]:
        """By default an error: nobody but the task can say what becomes of targets."""
        raise NetzipError(f"task {self.name} has no augment: flip and crop cannot be used with it")

    def collate(self, targets: Any, device: str) -> Any:
        """By default targets are a numpy array, which becomes a tensor."""
        import torch

        return torch.from_numpy(targets).to(device)

    def golden(self, targets: Any) -> Mapping[str, np.ndarray]:  # noqa: ARG002
        return {}

    @abc.abstractmethod
    def loss(
        self, outputs: tuple[torch.Tensor, ...], targets: Any, label_smoothing: float
    ) -> torch.Tensor: ...

    @abc.abstractmethod
    def imitate(
        self,
        outputs: tuple[torch.Tensor, ...],
        wanted: tuple[torch.Tensor, ...],
        temperature: float,
    ) -> torch.Tensor: ...

    @abc.abstractmethod
    def differ(self, one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray: ...

    def credit(self, outputs: Sequence[np.ndarray], targets: Any) -> np.ndarray:
        """What each sample adds to the primary accuracy, from 0 to 1: its mean is that accuracy.

        Args:
            outputs: float32 (n, ...) each, in the spec's order.
            targets: of the same samples, as the split has them.

        Returns:
            (n,), bool where a sample is right or wrong, else float.
        """
        raise NotImplementedError("credit, or else validate, evaluate and compare")

    def figures(self, outputs: Sequence[np.ndarray], targets: Any) -> Mapping[str, float]:
        """The accuracies of a whole split, by name; the arguments as those of `credit`."""
        return {self.primary: float(self.credit(outputs, targets).mean())}

    def per_class(
        self,
        outputs: Sequence[np.ndarray],  # noqa: ARG002
        targets: Any,  # noqa: ARG002
    ) -> list[dict[str, Any]]:
        """Rows of the accuracies by group of samples; by default there are no groups."""
        return []

    def validate(self, network: torch.nn.Module) -> float:
        import torch

        device = next(network.parameters(), torch.empty(0)).device
        total, split = 0.0, self.split("validation")
        with torch.inference_mode():
            for samples, targets in split.batches(VALIDATION_BATCH):
                value = network(torch.from_numpy(samples).to(device))
                answers = [each.cpu().numpy() for each in outputs_of(value, self.outputs.names)]
                total += float(self.credit(answers, targets).sum())
        return total / len(split)

    def evaluate(
        self,
        session: Session,
        split: str,
        *,
        batch: int,
        progress: Callable[[str, float], None] = lambda _what, _done: None,
        final: bool = False,
        at_least: float = 0.0,
    ) -> Evaluation:
        chosen = self.split(split, final=final)
        pieces = []
        done, lost = 0, 0.0
        for samples, targets in chosen.batches(batch):
            answers = self.answers(session, samples)
            pieces.append(answers)
            done += len(samples)
            lost += float((1.0 - self.credit(answers, targets)).sum())
            at_best = 1 - lost / len(chosen)
            if at_best < at_least:
                raise OutOfReach(1 - lost / done, at_best, done)
            progress(f"evaluating on {split}", done / len(chosen))
        outputs = tuple(map(np.concatenate, zip(*pieces, strict=True)))
        figures = self.figures(outputs, chosen.targets)
        return Evaluation(
            split=split,
            outputs=outputs,
            metrics={f"accuracy/{key}": value for key, value in figures.items()},
            per_class=tuple(self.per_class(outputs, chosen.targets)),
        )

    def answers(self, session: Session, samples: np.ndarray) -> tuple[np.ndarray, ...]:
        """A deployable's outputs, by name where it has the spec's names, else the first ones.

        Raises:
            NetzipError: they are not the task's.
        """
        values = dict(zip(session.outputs, session.run(samples), strict=True))
        names = self.outputs.names if {*self.outputs.names} <= {*values} else [*values]
        answers = tuple(values[name] for name in names[: len(self.outputs.names)])
        try:
            self.outputs.require(answers, len(samples), "the model")
        except InputError as error:
            raise NetzipError(str(error)) from None
        return answers

    def compare(self, baseline: Evaluation, candidate: Evaluation, seed: int) -> Comparison:
        targets = self._splits[candidate.split].targets
        one, other = (self.credit(each.outputs, targets) for each in (baseline, candidate))
        whole = one.dtype == bool
        drop = (bootstrap_drop if whole else bootstrap_mean_drop)(one, other, seed=seed)
        metrics = {
            "accuracy/drop_points": drop.value,
            "accuracy/drop_points_low": drop.low,
            "accuracy/drop_points_high": drop.high,
        }
        if whole:
            metrics["accuracy/mcnemar_p"] = mcnemar(one, other)
        return Comparison(metrics, candidate.per_class)
