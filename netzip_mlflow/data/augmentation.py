"""What augmentation does to a batch: applied to samples here, to their targets by the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from netzip_mlflow.recipe import Augment

__all__ = ["Changes", "draw"]


@dataclass(frozen=True, eq=False)
class Changes:
    """What is done to n samples: first flipped, then shifted.

    Attributes:
        flips: bool (n,): whether the last axis is turned round; None: no sample.
        starts: int64 (axes, n): where each sample begins in itself padded with `pad` zeros on every
            side, by axis behind the channels; None: no sample is shifted.
    """

    flips: torch.Tensor | None
    starts: torch.Tensor | None
    pad: int

    @property
    def moves(self) -> torch.Tensor | None:
        """By how many pixels contents move along each axis, int64 (axes, n)."""
        return None if self.starts is None else self.pad - self.starts

    def of(self, positions: torch.Tensor) -> Changes:
        """Of some of the samples."""
        return Changes(
            None if self.flips is None else self.flips[positions],
            None if self.starts is None else self.starts[:, positions],
            self.pad,
        )

    def applied(self, samples: torch.Tensor) -> torch.Tensor:
        """The changed samples, float32 (n, C, ...) as they came."""
        import torch
        from torch.nn import functional

        axes = samples.ndim - 2
        if self.flips is not None:
            flips = self.flips.view(-1, *[1] * (axes + 1))
            samples = torch.where(flips, samples.flip(-1), samples)
        if self.starts is not None:
            sizes = samples.shape
            samples = functional.pad(samples, (self.pad,) * (2 * axes))
            for axis, start in enumerate(self.starts, 2):
                places = torch.arange(sizes[axis]).view(-1, *[1] * (axes + 1 - axis))
                index = start.view(-1, *[1] * (axes + 1)) + places
                shape = [*samples.shape]
                shape[axis] = sizes[axis]
                samples = samples.gather(axis, index.expand(shape))
        return samples


def draw(count: int, axes: int, augment: Augment, order: torch.Generator) -> Changes:
    """New changes for `count` samples of so many axes behind the channels."""
    import torch

    flips = torch.rand(count, generator=order) < 0.5 if augment.flip else None
    starts = None
    if augment.crop:
        starts = torch.randint(0, 2 * augment.crop + 1, (axes, count), generator=order)
    return Changes(flips, starts, augment.crop)
