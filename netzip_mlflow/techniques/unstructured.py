"""What the unstructured prunings share: one global pass of torch's pruning, kept as masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netzip_mlflow.errors import NetzipError

if TYPE_CHECKING:
    from torch import nn
    from torch.nn.utils import prune

    from netzip_mlflow.twin import Twin

__all__ = ["prunable", "prune_globally"]


def prunable(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The convolutions and linear layers of a network, by name: those whose weights are pruned."""
    from torch import nn

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]


def prune_globally(
    twin: Twin, method: type[prune.BasePruningMethod], ratio: float, seed: int, label: str
) -> Twin:
    """Zero the `ratio` of weights that `method` chooses over all layers; earlier zeros count in.

    Raises:
        NetzipError: the network has no convolution or linear layer.
    """
    import torch
    from torch.nn.utils import prune

    pruned = twin.copy()
    pruned.model.to(memory_format=torch.contiguous_format)  # torch's pruning flattens by view
    layers = prunable(pruned.model)
    if not layers:
        raise NetzipError(f"{label}: the network has no convolution or linear layer to prune")
    if ratio == 0:
        return pruned.replace(chain=(*twin.chain, label))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prune.global_unstructured(
            [(module, "weight") for _, module in layers], pruning_method=method, amount=ratio
        )
    masks = dict(twin.masks)
    for name, module in layers:
        key = f"{name}.weight" if name else "weight"
        mask = module.get_buffer("weight_mask").bool()
        masks[key] = mask & masks[key] if key in masks else mask
        prune.remove(module, "weight")
        weight = module.get_parameter("weight")
        weight.data.mul_(masks[key])
    return pruned.replace(masks=masks, chain=(*twin.chain, label))
