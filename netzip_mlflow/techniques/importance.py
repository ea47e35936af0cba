"""How important channels are: what ranks them for structured pruning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.channels import Group, channel_sums

if TYPE_CHECKING:
    import torch

    from netzip_mlflow.twin import Twin

__all__ = ["importances"]

BATCH = 64  # images a gradient is summed over at a time: memory only


def importances(
    twin: Twin, groups: Sequence[Group], kind: str, context: Context
) -> list[torch.Tensor]:
    """The importance of each group's units, float64 (units,) each, summed over all weights of
    convolutions and linear layers that would go with a unit (DepGraph, arXiv 2301.12900, 3.3).

    `kind` is l1 (|w|; Li et al., arXiv 1608.08710), l2 (w^2), taylor (|w dL/dw| on the calibration
    split; Molchanov et al., arXiv 1906.10771), or random (torch's global generator).
    """
    import torch

    if kind == "random":
        return [torch.rand(group.units, dtype=torch.float64) for group in groups]
    layers = {reach.layer for group in groups for reach in group.reaches}
    values = _saliency(twin, layers, kind, context)
    found = []
    for group in groups:
        total = torch.zeros(group.channels, dtype=torch.float64)
        for reach in group.reaches:
            sums = channel_sums(
                twin.model.get_submodule(reach.layer), values[reach.layer], reach.reads
            )
            total.index_add_(0, torch.tensor(reach.roots), sums[reach.channels])
        found.append(total.view(group.blocks, group.units).sum(0))
    return found


def _saliency(
    twin: Twin, layers: Iterable[str], kind: str, context: Context
) -> dict[str, torch.Tensor]:
    """What each weight is worth, by layer, float64 of the weight's shape."""
    import torch

    if kind != "taylor":
        power = 1 if kind == "l1" else 2
        weights = {name: twin.model.get_parameter(f"{name}.weight") for name in layers}
        return {name: w.detach().double().abs() ** power for name, w in weights.items()}
    copied = twin.copy()
    network = copied.network().to(context.device)
    for weight in network.parameters():
        weight.requires_grad_(True)
    count = len(context.calibration)
    with torch.enable_grad():
        for images, labels in context.calibration.batches(BATCH):
            pixels, targets = (torch.from_numpy(a).to(context.device) for a in (images, labels))
            loss = context.task.loss(network(pixels).float(), targets, 0.0)
            (loss * (len(labels) / count)).backward()
    found = {}
    for name in layers:
        weight = copied.model.get_parameter(f"{name}.weight")
        slope = torch.zeros_like(weight) if weight.grad is None else weight.grad
        found[name] = (weight.detach() * slope).abs().cpu().double()
    return found
