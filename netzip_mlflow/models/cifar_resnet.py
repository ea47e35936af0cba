"""The residual networks for CIFAR: ResNet-20, 32, 44, 56 and 110.

Source: He et al., Deep Residual Learning for Image Recognition (2015), section 4.2, with option A:
shortcuts without parameters (every second pixel, zeros for the new channels). The parameters'
names are those of akamaster/pytorch_resnet_cifar10, so that its weights load.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "CifarResNet",
    "resnet20_cifar",
    "resnet32_cifar",
    "resnet44_cifar",
    "resnet56_cifar",
    "resnet110_cifar",
]

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.padding = (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        """Option A: every `stride`-th pixel, zeros for the new channels, half on either side."""
        if self.stride == 1 and not self.padding:
            return x
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.padding, self.padding))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, inputs, H, W) to (n, outputs, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """Depth 6 n + 2: a first convolution, three stages of n blocks, one linear layer."""

    def __init__(self, blocks: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks, WIDTHS[0], WIDTHS[0], 1)
        self.layer2 = _stage(blocks, WIDTHS[0], WIDTHS[1], 2)
        self.layer3 = _stage(blocks, WIDTHS[1], WIDTHS[2], 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, C, H, W) to scores (n, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


# Global pooling: any size of image fits, so `size` is taken as every network's and not needed.


def resnet20_cifar(num_classes: int, channels: int, size: tuple[int, int]) -> CifarResNet:  # noqa: ARG001
    """ResNet-20; 269,722 parameters for 3 channels and 10 classes."""
    return CifarResNet(3, num_classes, channels)


def resnet32_cifar(num_classes: int, channels: int, size: tuple[int, int]) -> CifarResNet:  # noqa: ARG001
    """ResNet-32; 464,154 parameters for 3 channels and 10 classes."""
    return CifarResNet(5, num_classes, channels)


def resnet44_cifar(num_classes: int, channels: int, size: tuple[int, int]) -> CifarResNet:  # noqa: ARG001
    """ResNet-44; 658,586 parameters for 3 channels and 10 classes."""
    return CifarResNet(7, num_classes, channels)


def resnet56_cifar(num_classes: int, channels: int, size: tuple[int, int]) -> CifarResNet:  # noqa: ARG001
    """ResNet-56; 853,018 parameters for 3 channels and 10 classes."""
    return CifarResNet(9, num_classes, channels)


def resnet110_cifar(num_classes: int, channels: int, size: tuple[int, int]) -> CifarResNet:  # noqa: ARG001
    """ResNet-110; 1,727,962 parameters for 3 channels and 10 classes."""
    return CifarResNet(18, num_classes, channels)
