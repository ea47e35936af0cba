"""Code books of convolution kernels: clustering, and the rounding that training goes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from netzip_mlflow.deployable.encodings import BOOK
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.quantisation.grids import LEAST, OnGrid, levels
from netzip_mlflow.quantisation.rounding import REDUCED

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["Book", "Shared", "cluster", "rules"]

ITERATIONS = 30
SPREAD = 4.0  # standard deviations of a channel's weights that the codes reach


class Book(nn.Module):
    """Kernels in codes, float (n, h w); their negatives belong to the book too.

    `pace` multiplies their gradient: they are in codes, which are far larger than weights, and the
    gradients of all who use a kernel add up in it.
    """

    def __init__(self, kernels: torch.Tensor, pace: float = 1.0) -> None:
        super().__init__()
        self.kernels = nn.Parameter(kernels)
        self.pace = pace

    def whole(self) -> torch.Tensor:
        """The kernels as integers; the gradient passes the rounding."""
        inside = self.kernels.clamp(-REDUCED, REDUCED)
        return torch.round(inside).detach() + (inside - inside.detach()) * self.pace

    def nearest(self, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For kernels (k, h w): the book's nearest, and +1 or -1 (k, 1) where it is turned."""
        kernels = torch.round(self.kernels.detach().clamp(-REDUCED, REDUCED))
        with torch.autocast(
            wanted.device.type, enabled=False
        ):  # training chooses as evaluation does
            products = wanted.float() @ kernels.float().T
        index = (2 * products.abs() - kernels.square().sum(1)).argmax(1)
        sign = products.gather(1, index[:, None]).sign()
        return index, torch.where(sign == 0, torch.ones_like(sign), sign)


class Shared(OnGrid):
    """Kernels of a weight (out, in, h, w) taken from a book, with a learned scale per channel."""

    def __init__(self, weight: torch.Tensor, book: Book) -> None:
        super().__init__("kernels", scales(weight), weight[0].numel(), REDUCED)
        self.book = book

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight with every kernel replaced by the nearest of the book."""
        scale = self.spread(weight)
        wanted = (weight.detach() / scale.detach()).reshape(-1, weight[0, 0].numel())
        index, sign = self.book.nearest(wanted)
        taken = (self.book.whole()[index] * sign).reshape(weight.shape)
        return taken * scale + (weight - weight.detach())


def scales(weight: torch.Tensor) -> torch.Tensor:
    """Scale per output channel at which codes reach `SPREAD` standard deviations."""
    spread = weight.detach().flatten(1).square().mean(1).sqrt() * SPREAD / REDUCED
    return spread.clamp_min(float(spread.max()) * 1e-4 or LEAST)


def cluster(kernels: torch.Tensor, weights: torch.Tensor, seed: int) -> torch.Tensor:
    """k-means of kernels (k, h w) up to their sign, each error weighted (k,): (<= 128, h w)."""
    draw = torch.Generator().manual_seed(seed)
    count = min(BOOK, len(kernels))
    book = Book(kernels[torch.randperm(len(kernels), generator=draw)[:count]].clone())
    for _ in range(ITERATIONS):
        index, sign = book.nearest(kernels)
        total = torch.zeros(count).index_add_(0, index, weights)
        summed = torch.zeros_like(book.kernels.data)
        summed.index_add_(0, index, kernels * sign * weights[:, None])
        used = total > 0
        book.kernels.data[used] = summed[used] / total[used, None]
        idle = int((~used).sum())  # kernels that nobody wants go to where the error is largest
        if idle:
            error = (book.kernels.data[index] * sign - kernels).square().sum(1) * weights
            book.kernels.data[~used] = kernels[error.topk(idle).indices]
    return book.kernels.data


def rules(twin: Twin, found: Mapping[str, nn.Module], books: int, seed: int) -> dict[str, OnGrid]:
    """A rule per layer: spatial kernels from books, neighbours sharing one; the others int8.

    Raises:
        NetzipError: fewer layers have spatial kernels than there are books, or one is pruned.
    """
    names = list(found)
    spatial = [
        name
        for name in names[1:-1]
        if isinstance(module := found[name], nn.Conv2d) and module.weight[0, 0].numel() > 1
    ]
    if len(spatial) < books:
        raise NetzipError(
            f"share_kernels.books: {books} given, and {len(spatial)} inner layers have spatial "
            "kernels; allowed: at most one book for each of them"
        )
    pruned = [n for n in spatial if f"{n}.weight" in twin.masks]
    if pruned:
        raise NetzipError(f"share_kernels: {pruned[0]} is pruned, and code books keep no zeros")
    others = levels(twin, {name: "int8" for name in names if name not in spatial})
    made: dict[str, OnGrid] = dict(others)
    for group in _groups(twin, spatial, books):
        weights = [twin.model.get_parameter(f"{name}.weight").detach().cpu() for name in group]
        rows, importance = [], []
        for weight in weights:
            scale = scales(weight).view(-1, 1, 1, 1)
            rows.append((weight / scale).reshape(-1, weight[0, 0].numel()))
            importance.append(scale.square().expand(*weight.shape[:2], 1, 1).reshape(-1))
        kernels = cluster(torch.cat(rows), torch.cat(importance), seed)
        users = sum(len(row) for row in rows) / len(kernels)
        # a kernel then moves as a weight would by the mean gradient of those who use it
        book = Book(kernels, 1 / (users * float(torch.cat(importance).mean())))
        made |= {name: Shared(weight, book) for name, weight in zip(group, weights, strict=True)}
    return made


def _groups(twin: Twin, names: list[str], books: int) -> list[list[str]]:
    """Neighbouring layers of one kernel shape, about as many kernels in each group."""
    weights = {name: twin.model.get_parameter(f"{name}.weight") for name in names}
    share = sum(w.shape[0] * w.shape[1] for w in weights.values()) / books
    groups: list[list[str]] = []
    filled = 0.0
    for position, name in enumerate(names):
        size = weights[name].shape[0] * weights[name].shape[1]
        same = groups and weights[groups[-1][-1]].shape[2:] == weights[name].shape[2:]
        left = len(names) - position
        room = len(groups) >= books or (filled + size / 2 <= share * len(groups))
        needed = left <= books - len(groups)
        if same and room and not needed:
            groups[-1].append(name)
        else:
            groups.append([name])
        filled += size
    return groups
