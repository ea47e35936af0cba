"""A task of a user's own, with two outputs: which digit is in a picture, and where its centre is.

`task: "digit_and_centre:DigitAndCentre"`, `data.factory: digit_and_centre:scenes`,
`model.factory: digit_and_centre:network`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from netzip_mlflow.data import Changes, Part, Source, open_source
from netzip_mlflow.metrics import Metric
from netzip_mlflow.metrics.metric import percent
from netzip_mlflow.recipe import DataSpec
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.tasks.task_base import TaskBase

__all__ = ["DigitAndCentre", "network", "scenes", "student"]

SIDE = 12
CLOSE = 2.0  # pixels: a centre that near is right


class DigitAndCentre(TaskBase):
    """Targets are float32 (n, 3): the digit, and its centre's row and column in pixels."""

    name: ClassVar[str] = "digit-and-centre"
    primary: ClassVar[str] = "located"
    metrics = (
        Metric("accuracy/located", "Digit and centre", "both right", "more", "%", 0.01, percent),
        Metric("accuracy/digit", "Digit", "named right", "more", "%", 0.01, percent),
        Metric("accuracy/centre_px", "Distance of centres", "mean distance", "less", "px"),
    )
    outputs = OutputSpec.of(digit=(10,), centre=(2,))
    facts: Mapping[str, Any] = {"centre": {"axes": ["row", "column"], "unit": "pixels"}}

    @classmethod
    def cut(cls, source: Source, spec: DataSpec, seed: int) -> Self:
        return cls(open_source(source, spec, seed, strata=lambda t: t[:, 0].astype(np.int64)))

    def augment(
        self, samples: torch.Tensor, targets: np.ndarray, changes: Changes
    ) -> tuple[torch.Tensor, np.ndarray]:
        moved = targets.copy()
        if changes.flips is not None:
            flips = changes.flips.numpy()
            moved[flips, 2] = samples.shape[3] - 1 - moved[flips, 2]
        if changes.moves is not None:
            moved[:, 1:] += changes.moves.numpy().T
        return changes.applied(samples), moved

    def golden(self, targets: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"targets": targets}

    def loss(
        self, outputs: tuple[torch.Tensor, ...], targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        digit, centre = outputs
        named = functional.cross_entropy(
            digit, targets[:, 0].long(), label_smoothing=label_smoothing
        )
        return named + functional.smooth_l1_loss(centre, targets[:, 1:]) / CLOSE

    def imitate(
        self,
        outputs: tuple[torch.Tensor, ...],
        wanted: tuple[torch.Tensor, ...],
        temperature: float,
    ) -> torch.Tensor:
        ours, theirs = (functional.log_softmax(o[0] / temperature, 1) for o in (outputs, wanted))
        named = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return temperature**2 * named + functional.smooth_l1_loss(outputs[1], wanted[1]) / CLOSE

    def differ(self, one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
        named = np.abs(_softmax(one[0]) - _softmax(other[0])).sum(1)
        return named + np.linalg.norm(one[1] - other[1], axis=1) / CLOSE

    def credit(self, outputs: Sequence[np.ndarray], targets: np.ndarray) -> np.ndarray:
        named = outputs[0].argmax(1) == targets[:, 0]
        return named & (np.linalg.norm(outputs[1] - targets[:, 1:], axis=1) <= CLOSE)

    def figures(self, outputs: Sequence[np.ndarray], targets: np.ndarray) -> Mapping[str, float]:
        away = np.linalg.norm(outputs[1] - targets[:, 1:], axis=1)
        return {
            "located": float(self.credit(outputs, targets).mean()),
            "digit": float((outputs[0].argmax(1) == targets[:, 0]).mean()),
            "centre_px": float(away.mean()),
        }


class Network(nn.Module):
    """Three convolutions and a head for each question."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        inputs = 2 * width * (SIDE // 4) ** 2
        self.digit, self.centre = nn.Linear(inputs, 10), nn.Linear(inputs, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Float (n, 1, 12, 12) to `centre` (n, 2) in pixels and `digit` (n, 10)."""
        for layer in (self.conv1, self.conv2, self.conv3):
            x = torch.relu(layer(x))
        x = x.flatten(1)
        return {"centre": self.centre(x) + (SIDE - 1) / 2, "digit": self.digit(x)}


def network(width: int = 8) -> Network:
    """The factory: the task gives it no arguments."""
    return Network(width)


def student() -> Network:
    """A smaller one."""
    return Network(4)


def scenes(count: int = 1700, seed: int = 0) -> Source:
    """scikit-learn's digits of 8x8 pixels, each at a random place of a dark picture."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    pixels, draw = np.reshape(pixels, (-1, 8, 8)), np.random.default_rng(seed)
    pictures = draw.integers(0, 16, (count, SIDE, SIDE, 1), np.uint8)
    places = draw.integers(0, SIDE - 8 + 1, (count, 2))
    for picture, place, digit in zip(pictures, places, pixels, strict=False):
        rows, columns = (slice(at, at + 8) for at in place)
        picture[rows, columns, 0] += (digit * 14).astype(np.uint8)
    targets = np.column_stack([digits[:count], places + 3.5]).astype(np.float32)
    return Source("scenes", (), {"train": Part(pictures, targets)})


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
