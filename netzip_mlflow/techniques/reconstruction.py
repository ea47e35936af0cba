"""Weights of a pruned network fitted to what the whole one answers, layer by layer.

He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural Networks (ICCV 2017, arXiv
1707.06168), section 3.1: the least squares of a layer's outputs over what is left of its inputs, as
they come out of the layers that were fitted before it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from netzip_mlflow.data import Split
    from netzip_mlflow.edits.channels import Removal
    from netzip_mlflow.techniques.context import Context
    from netzip_mlflow.twin import Twin

__all__ = ["fit", "survivors"]

BATCH = 64
POSITIONS = 64  # of each image, at which a convolution's outputs are compared
RIDGE = 1e-3  # of the mean square of an input; towards the weights as they are


def survivors(
    model: nn.Module, shape: Sequence[int], removals: Sequence[Removal]
) -> dict[str, torch.Tensor]:
    """The output channels that each convolution and linear layer keeps, int64 (channels,), by its
    name: read off a copy in which every weight is the number of its channel."""
    import torch
    from torch import nn

    from netzip_mlflow.edits.channels import remove

    marked = copy.deepcopy(model)
    layers = [n for n, m in marked.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for name in layers:
            weight = marked.get_parameter(f"{name}.weight")
            numbers = torch.arange(len(weight), dtype=weight.dtype)
            weight.copy_(numbers.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight))
    remove(marked, shape, removals)
    return {
        name: marked.get_parameter(f"{name}.weight").detach().flatten(1)[:, 0].long()
        for name in layers
    }


def fit(
    pruned: Twin, whole: Twin, stay: Mapping[str, torch.Tensor], images: Split, context: Context
) -> None:
    """Fit the layers of `pruned` in place, in the order in which they are computed.

    Layers that are computed more than once, grouped convolutions, and paddings other than zeros
    keep their weights.

    Args:
        whole: the network that `pruned` was before.
        stay: `survivors` of the pruning.
        images: what both networks are shown.
    """
    import torch

    networks = [twin.network().to(context.device) for twin in (pruned, whole)]
    pixels = [torch.from_numpy(batch).to(context.device) for batch, _ in images.batches(BATCH)]
    draw = torch.Generator().manual_seed(context.seed)
    with torch.inference_mode():
        order = _order(networks[0], pruned.model, stay, pixels[0][:1])
    for number, name in enumerate(order):
        layer, model = pruned.model.get_submodule(name), whole.model.get_submodule(name)
        inputs: Any = 0.0
        products: Any = 0.0
        with torch.no_grad():
            for batch in pixels:
                given = _reached(networks[0], layer, batch)[0]
                wanted = _reached(networks[1], model, batch)[1][:, stay[name].to(batch.device)]
                rows, answers = _rows(layer, given, wanted, draw)
                inputs = inputs + rows.T @ rows
                products = products + rows.T @ answers
            _solve(layer, inputs, products)
        context.progress("fitting layers", (number + 1) / len(order))
    for twin in (pruned, whole):
        twin.model.to("cpu")


class _Reached(Exception):
    """The layer that is asked about has been computed; nothing after it is of interest."""


def _reached(
    network: nn.Module, layer: nn.Module, batch: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a layer is given for a batch of images, and what it answers."""
    found: list[torch.Tensor] = []

    def note(_module: nn.Module, given: tuple[torch.Tensor, ...], answer: torch.Tensor) -> None:
        found[:] = [given[0], answer]
        raise _Reached

    handle = layer.register_forward_hook(note)
    try:
        network(batch)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0], found[1]


def _order(
    network: nn.Module, model: nn.Module, names: Mapping[str, Any], image: torch.Tensor
) -> list[str]:
    """The layers that can be fitted, as they are computed."""
    called: list[str] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
        for name in names
    ]
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    times = Counter(called)
    return [n for n in called if times[n] == 1 and _fits(model.get_submodule(n))]


def _fits(layer: Any) -> bool:
    from torch import nn

    if isinstance(layer, nn.Linear):
        return True
    plain = layer.groups == 1 and layer.padding_mode == "zeros"
    return plain and not isinstance(layer.padding, str)


def _rows(
    layer: Any, given: torch.Tensor, wanted: torch.Tensor, draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (n, weights of one output, and 1 where there is a bias) and outputs (n, channels)."""
    import torch
    from torch import nn

    if isinstance(layer, nn.Linear):
        rows, answers = given.flatten(0, -2), wanted.flatten(0, -2)
    else:
        places = [*_places(wanted.shape[2:], draw)]
        rows = torch.cat([patch.flatten(1) for patch in _patches(layer, given, places)])
        answers = torch.cat([wanted[:, :, y, x] for y, x in places])
    if layer.bias is not None:
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
    return rows.double(), answers.double()


def _places(size: Sequence[int], draw: torch.Generator) -> Iterator[tuple[int, int]]:
    import torch

    height, width = size
    for place in torch.randperm(height * width, generator=draw)[:POSITIONS].tolist():
        yield divmod(place, width)


def _patches(
    layer: Any, given: torch.Tensor, places: Sequence[tuple[int, int]]
) -> Iterator[torch.Tensor]:
    """What a convolution reads for its output at each place, (batch, channels, height, width)."""
    from torch.nn import functional

    (high, wide), (down, right) = layer.padding, layer.stride
    padded = functional.pad(given, (wide, wide, high, high))
    reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    for y, x in places:
        rows = slice(y * down, y * down + reach[0], layer.dilation[0])
        yield padded[:, :, rows, x * right : x * right + reach[1] : layer.dilation[1]]


def _solve(layer: Any, inputs: torch.Tensor, products: torch.Tensor) -> None:
    """Set a layer's weights to those with the least squares."""
    import torch

    now = layer.weight.flatten(1).double()
    if layer.bias is not None:
        now = torch.cat([now, layer.bias.double()[:, None]], 1)
    ridge = RIDGE * inputs.diagonal().mean() * torch.eye(len(inputs)).to(inputs)
    found = torch.linalg.solve(inputs + ridge, products + ridge @ now.T).T
    if layer.bias is not None:
        layer.bias.copy_(found[:, -1])
        found = found[:, :-1]
    layer.weight.copy_(found.reshape(layer.weight.shape))
