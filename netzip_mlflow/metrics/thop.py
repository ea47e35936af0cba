"""MACs by thop, an independent count on the float network: the check of our own count.

Needs torch and ultralytics-thop; the rest of this room does not.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ThopCount", "count"]


class ThopCount(NamedTuple):
    """MACs of one sample: `total` as thop defines it (with BatchNorm and pooling), and `layers`,
    its convolutions and linear layers alone, which is what agrees with the graph's count."""

    total: int
    layers: int


def count(network: nn.Module, shape: tuple[int, ...]) -> ThopCount:
    """Count a deep copy of `network` on a sample of `shape` (C, H, W); it stays untouched."""
    import thop
    import torch
    from torch import nn

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
    copied = copy.deepcopy(network).cpu().eval()
    with torch.no_grad():
        total = thop.profile(copied, inputs=(torch.zeros(1, *shape),), verbose=False)[0]
        alone = copy.deepcopy(network).cpu().eval()
        other = {
            type(m): _nothing
            for m in alone.modules()
            if not isinstance(m, kinds) and not [*m.children()]
        }
        layers = thop.profile(
            alone, inputs=(torch.zeros(1, *shape),), custom_ops=other, verbose=False
        )[0]
    return ThopCount(int(total), int(layers))


def _nothing(*_arguments: object) -> None:
    """Counts a module as no operations; thop keeps what a module's counter leaves at zero."""
