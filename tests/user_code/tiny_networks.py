"""Networks as a user writes them: found by `model.factory: tiny_networks:tiny`."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Normed", "Shuffled", "Tiny", "normed", "shuffled", "tiny", "vision_transformer"]


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


class Shuffled(nn.Module):
    """A channel shuffle between two convolutions, which no dependency graph follows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 3)
        self.third = nn.Conv2d(8, 8, 3)
        self.linear = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, 3, H, W) to scores (n, classes)."""
        x = torch.relu(self.first(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = torch.relu(self.second(x))
        return self.linear(torch.relu(self.third(x)).mean((2, 3)))


def shuffled(num_classes: int) -> Shuffled:
    """The factory."""
    return Shuffled(num_classes)


class Normed(nn.Module):
    """Linear layers around a LayerNorm."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float (n, 3, H, W) to scores (n, classes)."""
        return self.linear(self.norm(self.first(x.mean((2, 3)))))


def normed(num_classes: int, width: int = 100) -> Normed:
    """The factory."""
    return Normed(num_classes, width)


def vision_transformer(num_classes: int) -> nn.Module:
    """torchvision's transformer for 32x32 images: three layers, four heads."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=3,
        num_heads=4,
        hidden_dim=96,
        mlp_dim=192,
        num_classes=num_classes,
    )
