"""How important channels are: what ranks them for structured pruning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from netzip_mlflow.edits.channels import Group, Reach, channel_sums
from netzip_mlflow.signature import outputs_of
from netzip_mlflow.techniques.context import Context

if TYPE_CHECKING:
    import torch
    from torch import nn

    from netzip_mlflow.twin import Twin

__all__ = ["importances"]

BATCH = 16  # images whose gradients are averaged before they are squared


def importances(
    twin: Twin, groups: Sequence[Group], kind: str, context: Context
) -> list[torch.Tensor]:
    """The importance of each group's units, float64 (units,) each.

    `l1` and `l2`: the sum of |w| (Li et al., arXiv 1608.08710) or of w^2, over all weights of
    convolutions and linear layers that would go with a unit (DepGraph, arXiv 2301.12900, 3.3).
    `taylor`: the change of the loss to first order, the sum of w dL/dw over the weights that read
    the unit, squared, averaged over batches of the calibration split (Molchanov et al., arXiv
    1906.10771, equation 8). `random`: from torch's global generator.
    """
    import torch

    if kind == "random":
        return [torch.rand(group.units, dtype=torch.float64) for group in groups]
    if kind == "taylor":
        return _taylor(twin, groups, context)
    power = 1 if kind == "l1" else 2
    weights = {n: w.detach().double().abs() ** power for n, w in _weights(twin.model, groups)}
    return [_by_unit(twin.model, group, group.reaches, weights) for group in groups]


def _taylor(twin: Twin, groups: Sequence[Group], context: Context) -> list[torch.Tensor]:
    import torch

    copied = twin.copy()
    network = copied.network().to(context.device)
    for weight in network.parameters():
        weight.requires_grad_(True)
    weights = dict(_weights(copied.model, groups))
    totals = [torch.zeros(group.units, dtype=torch.float64) for group in groups]
    count = len(context.calibration)
    for samples, targets in context.calibration.batches(BATCH):
        pixels = torch.from_numpy(samples).to(context.device)
        wanted = context.task.collate(targets, context.device)
        with torch.enable_grad():
            outputs = tuple(each.float() for each in outputs_of(network(pixels)))
            loss = context.task.loss(outputs, wanted, 0.0)
            slopes = torch.autograd.grad(loss, [*weights.values()], allow_unused=True)
        gains = {
            name: (weight.detach() * (0.0 if slope is None else slope)).cpu().double()
            for (name, weight), slope in zip(weights.items(), slopes, strict=True)
        }
        for index, group in enumerate(groups):
            readers = [reach for reach in group.reaches if reach.reads] or group.reaches
            change = _by_unit(copied.model, group, readers, gains)
            totals[index] += change**2 * (len(samples) / count)
    return totals


def _weights(model: nn.Module, groups: Sequence[Group]) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights that the groups reach into, by layer."""
    for layer in dict.fromkeys(reach.layer for group in groups for reach in group.reaches):
        yield layer, model.get_parameter(f"{layer}.weight")


def _by_unit(
    model: nn.Module, group: Group, reaches: Iterable[Reach], values: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Values of weights, summed by the unit of a group that they belong to, (units,)."""
    import torch

    total = torch.zeros(group.channels, dtype=torch.float64)
    for reach in reaches:
        sums = channel_sums(model.get_submodule(reach.layer), values[reach.layer], reach.reads)
        total.index_add_(0, torch.tensor(reach.roots), sums[reach.channels])
    return total.view(group.blocks, group.units).sum(0)
