"""A network as a user writes it: found by `model.factory: tiny_networks:tiny`."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Tiny", "tiny"]


class Tiny(nn.Module):
    """Two convolutions with BatchNorm, pooling, one linear layer; any image size, 3 channels."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.linear = nn.Linear(2 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, 3, H, W) to scores (n, classes)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.linear(x.mean((2, 3)))


def tiny(num_classes: int, width: int = 8) -> Tiny:
    """The factory."""
    return Tiny(num_classes, width)
