"""Image classification: one label a sample."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from netzip_mlflow.errors import NetzipError, SplitSealed
from netzip_mlflow.metrics import Metric, accuracy, fidelity
from netzip_mlflow.metrics.scores import DROP
from netzip_mlflow.tasks import Comparison, Evaluation, OutOfReach

if TYPE_CHECKING:
    import torch

    from netzip_mlflow.data import Dataset, Split
    from netzip_mlflow.recipe import DataSpec
    from netzip_mlflow.runtimes import Session

__all__ = ["Classification"]

VALIDATION_BATCH = 250


class Classification:
    """See `netzip_mlflow.tasks.Task`; scores are logits (n, classes), accuracy is top-1."""

    name = "classification"
    primary = "top1"
    metrics: tuple[Metric, ...] = (*accuracy.METRICS, DROP, *fidelity.METRICS)

    def __init__(self, data: Dataset) -> None:
        self.classes = data.classes
        self.shape = data.shape
        self.digest = data.digest
        self.sizes = {name: len(split) for name, split in data.splits.items()}
        self._splits = data.splits
        self._seals = 0

    @classmethod
    def open(cls, spec: DataSpec, seed: int) -> Classification:
        """Open the data set of a recipe."""
        from netzip_mlflow.data import open_data

        return cls(open_data(spec, seed))

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
        from netzip_mlflow.data import open_source
        from netzip_mlflow.data.arrays import from_arrays
        from netzip_mlflow.recipe import DataSpec

        spec = DataSpec(
            factory="arrays:given", validation=validation, test=test, calibration=calibration
        )
        return cls(open_source(from_arrays(arrays, name="arrays", groups=None), spec, seed))

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

    def loss(
        self, scores: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        from torch.nn import functional

        self._require_classes(tuple(scores.shape[1:]))
        return functional.cross_entropy(scores, targets, label_smoothing=label_smoothing)

    def validate(self, network: torch.nn.Module) -> float:
        import torch

        device = next(network.parameters(), torch.empty(0)).device
        right, split = 0, self.split("validation")
        with torch.inference_mode():
            for images, labels in split.batches(VALIDATION_BATCH):
                scores = network(torch.from_numpy(images).to(device))
                right += int((scores.argmax(1).cpu().numpy() == labels).sum())
        return right / len(split)

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
        outputs = []
        done = wrong = 0
        for images, labels in chosen.batches(batch):
            scores, *_ = session.run(images)
            outputs.append(scores)
            done += len(images)
            wrong += int((scores.argmax(1) != labels).sum())
            at_best = 1 - wrong / len(chosen)
            if at_best < at_least:
                raise OutOfReach(1 - wrong / done, at_best, done)
            progress(f"evaluating on {split}", done / len(chosen))
        scores = np.concatenate(outputs)
        self._require_classes(scores.shape[1:])
        found = accuracy.classification(scores, chosen.labels)
        return Evaluation(
            split=split,
            outputs=scores,
            metrics={f"accuracy/{key}": value for key, value in found.items()},
            per_class=tuple(accuracy.per_class(scores, chosen.labels, self.classes)),
        )

    def _require_classes(self, shape: tuple[int, ...]) -> None:
        if shape != (len(self.classes),):
            raise NetzipError(
                f"the model answers an image with scores of shape {shape}; the data set "
                f"has {len(self.classes)} classes"
            )

    def compare(self, baseline: Evaluation, candidate: Evaluation, seed: int) -> Comparison:
        labels = self._splits[candidate.split].labels
        drop = accuracy.drop(baseline.outputs, candidate.outputs, labels, seed)
        change = fidelity.fidelity(baseline.outputs, candidate.outputs, labels)
        metrics = {f"accuracy/{key}": value for key, value in drop.items()}
        metrics |= {f"fidelity/{key}": value for key, value in change.items()}
        rows = [
            {**c, "recall_change_points": 100 * (c["recall"] - o["recall"])}
            for o, c in zip(baseline.per_class, candidate.per_class, strict=True)
        ]
        return Comparison(metrics, tuple(rows))
