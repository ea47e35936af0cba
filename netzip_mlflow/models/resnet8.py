"""ResNet-8, the image classifier of the MLPerf Tiny benchmark.

Source: mlcommons/tiny, benchmark/training/image_classification (Banbury et al. 2021). Its layers
and counts: 78,666 parameters with the BatchNorm statistics, 12,501,632 MACs, for 3x32x32 and 10
classes. Differences: padding is symmetric where Keras' "same" pads one side.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ResNet8", "resnet8"]


class Block(nn.Module):
    """Two 3x3 convolutions; a 1x1 convolution as the shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, inputs, H, W) to (n, outputs, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))


class ResNet8(nn.Module):
    """A first convolution, one block a stage, global average pooling, one linear layer."""

    def __init__(self, num_classes: int, channels: int, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = Block(width, width, 1)
        self.layer2 = Block(width, 2 * width, 2)
        self.layer3 = Block(2 * width, 4 * width, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, C, H, W) to scores (n, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


def resnet8(
    num_classes: int,
    channels: int,
    size: tuple[int, int],  # noqa: ARG001 (global pooling: any size fits)
    *,
    width: int = 16,
) -> ResNet8:
    """MLPerf Tiny's ResNet-8, in its random initial state; `width`: channels of the first stage,
    which the next two double."""
    return ResNet8(num_classes, channels, width)
