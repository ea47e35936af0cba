"""LeNet-5, the smallest network of the field.

Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition (1998), section II.B,
with ReLU and max pooling in place of tanh and trained subsampling, as is usual today.
"""

from __future__ import annotations

import torch
from torch import nn

from netzip_mlflow.errors import InputError, Problem

__all__ = ["LeNet5", "lenet5"]

SMALLEST = 16  # pixels a side: what two 5x5 convolutions and two poolings leave something of


class LeNet5(nn.Module):
    """Two convolutions, three linear layers; 61,706 parameters for 1x32x32 and 10 classes."""

    def __init__(self, num_classes: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        height, width = (((side - 4) // 2 - 4) // 2 for side in size)
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.fc1 = nn.Linear(16 * height * width, 120)
        self.fc2 = nn.Linear(120, 84)
        self.linear = nn.Linear(84, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, C, H, W) to scores (n, classes)."""
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu(self.fc1(x.flatten(1)))
        x = self.relu(self.fc2(x))
        return self.linear(x)


def lenet5(num_classes: int, channels: int, size: tuple[int, int]) -> LeNet5:
    """LeNet-5 for images of `size` (H, W), in its random initial state.

    Raises:
        InputError: the images are too small for it.
    """
    if min(size) < SMALLEST:
        what = f"lenet5 cannot take images of {size[0]}x{size[1]}"
        raise InputError(Problem("model.name", what, f"{SMALLEST}x{SMALLEST} or larger"))
    return LeNet5(num_classes, channels, size)
