"""Layers of low rank: truncated SVD of a matrix, Tucker-2 of a spatial convolution.

A layer's ranks are (r,) for a linear layer or a 1x1 convolution, which become two of their kind,
and (outputs, inputs) for a spatial convolution, which becomes 1x1 -> kxk -> 1x1; a rank that is
the number of channels itself leaves its 1x1 out.

Bases are eigenvectors of the Gram matrix in float64: many times faster than the SVD of the long
unfolding, and right to 1e-8 of the largest singular value, below float32's own step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import InputError, Problem, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "Positions",
    "cheapest",
    "cost",
    "factorisable",
    "factorised",
    "full_ranks",
    "positions",
    "replay",
    "singular_values",
    "structure",
    "svd",
    "tucker2",
    "unfoldings",
]


@dataclass
class Positions:
    """Where a layer is applied for one image: places of its input and of its output, H x W each."""

    inputs: int = 0
    outputs: int = 0


def factorisable(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that can be split, by name.

    Not among them: grouped and depthwise convolutions (see docs/techniques.md); subclasses, whose
    forward may differ or whose weight others read; weights that are computed or shared.
    """
    from torch import nn

    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    paths = [id(module) for _, module in model.named_modules(remove_duplicate=False)]
    layers: dict[str, nn.Linear | nn.Conv2d] = {}
    for name, module in model.named_modules():
        if not name or type(module) not in (nn.Linear, nn.Conv2d):
            continue
        assert isinstance(module, nn.Linear | nn.Conv2d)  # noqa: S101 (typing only)
        alone = owners.get(id(module.weight)) == 1 and paths.count(id(module)) == 1
        if alone and getattr(module, "groups", 1) == 1:
            layers[name] = module
    return layers


def positions(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Positions]:
    """How often each factorisable layer is applied to an image (C, H, W); absent: not called."""
    import torch

    places: dict[str, Positions] = {}
    hooks = []

    def watch(name: str, outs: int, ins: int) -> Any:
        def hook(_layer: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            place = places.setdefault(name, Positions())
            place.inputs += inputs[0].numel() // ins
            place.outputs += out.numel() // outs

        return hook

    weight = next(model.parameters())
    try:
        for name, layer in factorisable(model).items():
            hooks.append(layer.register_forward_hook(watch(name, *layer.weight.shape[:2])))
        with torch.no_grad():
            model(torch.zeros(1, *shape, device=weight.device, dtype=weight.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return places


def unfoldings(weight: torch.Tensor) -> list[torch.Tensor]:
    """The matrices whose ranks are chosen, float64, shorter side first.

    One of a matrix or 1x1 kernel; of a spatial kernel (O, C, h, w) those by outputs (O, C h w) and
    by inputs (C, O h w).
    """
    kernel = weight.detach().double()
    if weight[0, 0].numel() == 1:
        sides = [kernel.flatten(1)]
    else:
        sides = [kernel.flatten(1), kernel.transpose(0, 1).flatten(1)]
    return [m if m.shape[0] <= m.shape[1] else m.T for m in sides]


def full_ranks(weight: torch.Tensor) -> tuple[int, ...]:
    """The ranks at which nothing is lost."""
    if weight[0, 0].numel() == 1:
        return (min(weight.shape[:2]),)
    return int(weight.shape[0]), int(weight.shape[1])


def cost(weight: torch.Tensor, ranks: tuple[int, ...] | None, places: Positions) -> int:
    """Multiply-accumulates for one image; without ranks those of the layer as it is."""
    outs, ins, area = int(weight.shape[0]), int(weight.shape[1]), weight[0, 0].numel()
    if ranks is None:
        return outs * ins * area * places.outputs
    if len(ranks) == 1:
        return ranks[0] * (ins + outs) * places.outputs
    left, right = ranks
    macs = left * right * area * places.outputs
    macs += right * ins * places.inputs if right < ins else 0
    return macs + (left * outs * places.outputs if left < outs else 0)


def cheapest(
    weight: torch.Tensor, ranks: tuple[int, ...], places: Positions
) -> tuple[int, ...] | None:
    """The cheapest ranks that keep at least the given ones; None where the layer itself is.

    Of a spatial convolution one side may stay whole: nothing of it is lost then, and with few
    channels (the first layer's) or a stride it can be the cheaper form.
    """
    options = [ranks]
    if len(ranks) == 2:
        outs, ins = full_ranks(weight)
        options += [(ranks[0], ins), (outs, ranks[1])]
    best = min(options, key=lambda form: (cost(weight, form, places), -sum(form)))
    return best if cost(weight, best, places) < cost(weight, None, places) else None


def svd(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(O, I) as (O, rank) @ (rank, I), the closest there is; float64.

    The singular values are shared evenly, so that neither factor dwarfs the other in training or
    on a quantiser's grid.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, left = svd(matrix.T, rank)
        return left.T, right.T
    basis = _basis(matrix, rank)
    projected = basis.T @ matrix
    scale = projected.norm(dim=1).sqrt()
    scale = scale.where(scale > 0, 1.0)
    return basis * scale, projected / scale[:, None]


def tucker2(
    kernel: torch.Tensor, ranks: tuple[int, int], sweeps: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kernel (O, C, h, w) as outputs (O, r), core (r, s, h, w), inputs (C, s); float64.

    HOSVD, then `sweeps` of HOOI: each side's basis anew for the other's (De Lathauwer et al. 2000;
    Kim et al., arXiv 1511.06530, section 3.1). Bases are orthonormal; a whole side is the identity.
    """
    import torch

    left = _basis(kernel.flatten(1), ranks[0])
    right = _basis(kernel.transpose(0, 1).flatten(1), ranks[1])
    for _ in range(sweeps):
        projected = torch.einsum("oikl,is->oskl", kernel, right)
        left = _basis(projected.flatten(1), ranks[0])
        projected = torch.einsum("oikl,or->irkl", kernel, left)
        right = _basis(projected.flatten(1), ranks[1])
    core = torch.einsum("oikl,or,is->rskl", kernel, left, right)
    return left, core, right


def structure(layer: nn.Linear | nn.Conv2d, ranks: tuple[int, ...]) -> nn.Sequential:
    """The layers that stand for one layer, `reduce`, `core` and `expand`; weights not yet set."""
    from torch import nn
    from torch.nn.utils import skip_init  # draws nothing from torch's generator

    options: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    bias, parts = layer.bias is not None, OrderedDict[str, nn.Module]()
    outs, ins = int(layer.weight.shape[0]), int(layer.weight.shape[1])
    if isinstance(layer, nn.Linear):
        parts["reduce"] = skip_init(nn.Linear, ins, *ranks, bias=False, **options)
        parts["expand"] = skip_init(nn.Linear, *ranks, outs, bias=bias, **options)
        return nn.Sequential(parts).train(layer.training)
    spatial = {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "padding_mode": layer.padding_mode,
    }
    if len(ranks) == 1:  # the first one takes the stride: both then work on the smaller image
        parts["reduce"] = skip_init(nn.Conv2d, ins, *ranks, bias=False, **spatial, **options)
        parts["expand"] = skip_init(nn.Conv2d, *ranks, outs, 1, bias=bias, **options)
        return nn.Sequential(parts).train(layer.training)
    left, right = ranks
    if right < ins:
        parts["reduce"] = skip_init(nn.Conv2d, ins, right, 1, bias=False, **options)
    last = left == outs
    parts["core"] = skip_init(nn.Conv2d, right, left, bias=bias and last, **spatial, **options)
    if not last:
        parts["expand"] = skip_init(nn.Conv2d, left, outs, 1, bias=bias, **options)
    return nn.Sequential(parts).train(layer.training)


def factorised(layer: nn.Linear | nn.Conv2d, ranks: tuple[int, ...], sweeps: int) -> nn.Sequential:
    """The layer's structure at these ranks, with the weights closest to its own."""
    import torch

    layers = structure(layer, ranks)
    kernel = layer.weight.detach().double().contiguous()
    if len(ranks) == 1:
        expand, reduce = svd(kernel.flatten(1), ranks[0])
        factors = {"reduce": reduce, "expand": expand}
    else:
        left, core, right = tucker2(kernel, (ranks[0], ranks[1]), sweeps)
        factors = {"reduce": right.T, "core": core, "expand": left}
    with torch.no_grad():
        for name, part in layers.named_children():
            weight = part.get_parameter("weight")
            weight.copy_(factors[name].reshape(weight.shape))
        if layer.bias is not None:
            list(layers)[-1].get_parameter("bias").copy_(layer.bias)
    return layers


def singular_values(matrix: torch.Tensor) -> torch.Tensor:
    """Descending, of a matrix whose shorter side comes first; float64."""
    import torch

    return torch.linalg.eigvalsh(matrix @ matrix.T).clamp_min(0).sqrt().flip(0)


def _basis(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The first `rank` left singular vectors as columns; the identity for all of them."""
    import torch

    if rank == len(matrix):
        return torch.eye(rank, dtype=matrix.dtype, device=matrix.device)
    _, vectors = torch.linalg.eigh(matrix @ matrix.T)
    return vectors.flip(1)[:, :rank]


def replay(model: nn.Module, data: Mapping[str, Any]) -> nn.Module:
    """The same layers split in a freshly built network; weights are not set.

    Raises:
        InputError: there is no such layer, or its ranks are none that it can have.
    """
    layers = factorisable(model)
    for name, ranks in data["layers"].items():
        where = f"factorise.layers.{name}"
        if name not in layers:
            hint = did_you_mean(name, layers)
            raise InputError(Problem(where, "no such layer to split", ", ".join(layers), hint))
        full = full_ranks(layers[name].weight)
        if len(ranks) != len(full) or not all(
            1 <= rank <= most for rank, most in zip(ranks, full, strict=True)
        ):
            allowed = " and ".join(f"1 to {f}" for f in full)
            raise InputError(Problem(where, f"ranks {ranks} given", allowed))
        model.set_submodule(name, structure(layers[name], tuple(ranks)))
    return model
