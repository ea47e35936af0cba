"""A problem of a thousand classes that is small otherwise: images of 8x8, a network of four layers.

`data.factory: many_classes:images`, `model.factory: many_classes:network`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

__all__ = ["Network", "images", "network"]

SIDE = 8


class Network(nn.Module):
    """Three convolutions and one linear layer over all that is left of the image."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.linear = nn.Linear(width * (SIDE // 2) ** 2, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, 3, 8, 8) to scores (n, classes)."""
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        return self.linear(torch.flatten(torch.relu(self.conv3(x)), 1))


def network(num_classes: int, width: int = 16) -> Network:
    """The factory."""
    return Network(num_classes, width)


def images(classes: int = 1000, train: int = 6, test: int = 3, seed: int = 0) -> dict:
    """Each class is a picture of its own, in noise: so many to train on and to test on."""
    draw = np.random.default_rng(seed)
    pictures = draw.integers(0, 256, (classes, SIDE, SIDE, 3))

    def part(each: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(classes), each)
        noisy = pictures[labels] + draw.normal(0, 90, (len(labels), SIDE, SIDE, 3))
        return noisy.clip(0, 255).astype(np.uint8), labels

    x_train, y_train = part(train)
    x_test, y_test = part(test)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
