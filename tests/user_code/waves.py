"""A task of a user's own on signals of two channels: how many periods lie in one, as a number.

`task: "waves:Periods"`, `data.factory: waves:signals`, `model.factory: waves:network`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from netzip_mlflow.data import Part, Source
from netzip_mlflow.metrics import Metric
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.tasks.task_base import TaskBase

__all__ = ["Periods", "network", "signals"]

LENGTH = 48


class Periods(TaskBase):
    """Targets are float32 (n, 1), from 1 to 6 periods; the nearer an answer, the more it counts."""

    name: ClassVar[str] = "periods"
    primary: ClassVar[str] = "nearness"
    metrics = (
        Metric("accuracy/nearness", "Nearness", "1 - periods away, at least 0", "more"),
        Metric("accuracy/rmse_periods", "Error", "root of the mean square", "less", "periods"),
    )
    outputs = OutputSpec.of(periods=(1,))

    def loss(
        self, outputs: tuple[torch.Tensor, ...], targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        return functional.mse_loss(outputs[0], targets)

    def imitate(
        self,
        outputs: tuple[torch.Tensor, ...],
        wanted: tuple[torch.Tensor, ...],
        temperature: float,
    ) -> torch.Tensor:
        return functional.mse_loss(outputs[0], wanted[0])

    def differ(self, one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
        return np.abs(one[0] - other[0])[:, 0]

    def credit(self, outputs: Sequence[np.ndarray], targets: np.ndarray) -> np.ndarray:
        return np.clip(1 - np.abs(outputs[0] - targets)[:, 0], 0, 1)

    def figures(self, outputs: Sequence[np.ndarray], targets: np.ndarray) -> Mapping[str, float]:
        return {
            "nearness": float(self.credit(outputs, targets).mean()),
            "rmse_periods": float(np.sqrt(((outputs[0] - targets) ** 2).mean())),
        }


def network(width: int = 8) -> nn.Module:
    """Three convolutions along time and one linear layer."""
    return nn.Sequential(
        *(nn.Conv1d(2, width, 5, padding=2), nn.BatchNorm1d(width), nn.ReLU()),
        *(nn.Conv1d(width, 2 * width, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv1d(2 * width, 2 * width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(2 * width * LENGTH // 4, 1)),
    )


def signals(count: int = 800, seed: int = 0) -> Source:
    """A sine and a cosine in noise, float32 (n, 48, 2) in [0, 1], of any phase."""
    draw = np.random.default_rng(seed)
    periods = draw.uniform(1, 6, (count, 1)).astype(np.float32)
    angle = 2 * np.pi * (periods * np.arange(LENGTH) / LENGTH + draw.random((count, 1)))
    waves = 0.5 + 0.3 * np.stack([np.sin(angle), np.cos(angle)], axis=2)
    noisy = np.clip(waves + draw.normal(0, 0.05, waves.shape), 0, 1).astype(np.float32)
    return Source("waves", (), {"train": Part(noisy, periods)})
