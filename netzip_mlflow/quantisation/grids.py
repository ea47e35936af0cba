"""Training with weights on a grid: what `qat`, `binarise` and `share_kernels` share.

While training, each layer computes with rounded weights and its gradient passes straight through
the rounding to the float weights behind (Bengio et al., arXiv 1308.3432). The step of a grid is
learned per output channel (Esser et al., Learned Step Size Quantization, arXiv 1902.08153).
Activations stay float meanwhile: their 8 bits cost next to nothing, and half of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from netzip_mlflow.deployable.encodings import FORMS
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.quantisation import rounding
from netzip_mlflow.twin import Grid

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Exports
    from netzip_mlflow.twin import Twin

__all__ = ["Levels", "OnGrid", "layers", "levels", "put", "take"]

LEAST = 1e-12
NARROW = 4  # up to so many codes, weights beyond the outermost still get their gradient


class OnGrid(nn.Module):
    """A parametrization that rounds a weight (out, ...) to scale x codes, and knows its grid.

    The gradient of the learned scale is damped by 1 / sqrt(weights of a channel x largest code).
    """

    def __init__(self, form: str, scale: torch.Tensor, weights: int, high: int) -> None:
        super().__init__()
        self.form = form
        self.scale = nn.Parameter(scale)
        self.slope = 1 / (weights * high) ** 0.5

    def spread(self, weight: torch.Tensor) -> torch.Tensor:
        """The scale, positive, in a shape that multiplies the weight."""
        scale = self.scale.abs().clamp_min(LEAST)
        scale = scale.detach() + (scale - scale.detach()) * self.slope
        return scale.view(-1, *(1,) * (weight.ndim - 1))

    def grid(self) -> Grid:
        """What the layer's weights lie on."""
        return Grid(self.form, self.scale.detach().abs().clamp_min(LEAST).float().cpu())


class Levels(OnGrid):
    """Weights on the codes of a form, with a learned scale per output channel.

    Zeros that a pruning has set stay zero.
    """

    def __init__(self, weight: torch.Tensor, form: str, mask: torch.Tensor | None = None) -> None:
        kind = FORMS[form]
        high = rounding.REDUCED if form == "int8" else kind.high
        rows = weight.detach().cpu().double().flatten(1).numpy()
        scale = torch.from_numpy(rounding.fit(rows, form, reduced=True)).to(weight)
        super().__init__(form, scale, rows.shape[1], high)
        self.high, self.step = high, kind.step
        self.leaky = kind.base <= NARROW
        self.mask = None if mask is None else nn.Buffer(mask.to(weight.device))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight (out, ...) rounded to scale x code."""
        scale = self.spread(weight)
        share = weight.detach() / scale
        inside = share.clamp(-self.high, self.high)
        codes = torch.round((inside + self.high) / self.step) * self.step - self.high
        rounded = (inside + (codes - inside).detach()) * scale
        passed = weight - weight.detach()
        if not self.leaky:
            passed = passed * (share.detach().abs() <= self.high)
        rounded = rounded + passed
        return rounded if self.mask is None else rounded * self.mask


def layers(twin: Twin, exports: Exports) -> Mapping[str, nn.Module]:
    """The convolutions and linear layers that the exported graph shows by name, in its order.

    Raises:
        NetzipError: there is none.
    """
    modules = dict(twin.model.named_modules())
    shown = {name: modules[name] for name in exports(twin).layers if name in modules}
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
    found = {name: module for name, module in shown.items() if isinstance(module, kinds)}
    if not found:
        raise NetzipError("the network has no convolution or linear layer to put on a grid")
    return found


def put(twin: Twin, rules: Mapping[str, OnGrid]) -> Twin:
    """A copy whose layers compute with rounded weights; `take` ends it.

    Layers that lie on a grid already, and have no rule, are kept on it.
    """
    copied = twin.copy()
    kept = {name: grid.form for name, grid in twin.grids.items() if name not in rules}
    rules = {**levels(twin, kept), **rules}
    for name, rule in rules.items():
        parametrize.register_parametrization(copied.model.get_submodule(name), "weight", rule)
    others = {k: m for k, m in twin.masks.items() if k.removesuffix(".weight") not in rules}
    return copied.replace(masks=others, grids={})  # rules hold the masks of their layers meanwhile


def levels(twin: Twin, forms: Mapping[str, str], where: str = "") -> dict[str, Levels]:
    """A rule per layer (name -> form), with the mask that a pruning has left.

    `where`: the parameter that gave the forms, for messages.

    Raises:
        NetzipError: a pruned layer and a form without a zero.
    """
    made = {}
    for name, form in forms.items():
        mask = twin.masks.get(f"{name}.weight")
        if mask is not None and not bool(mask.all()):
            rounding.require_zero(name, form, where)
        made[name] = Levels(twin.model.get_parameter(f"{name}.weight"), form, mask)
    return made


def take(trained: Twin, origin: Twin) -> Twin:
    """Plain weights that lie exactly on their grids, and the grids."""
    grids: dict[str, Grid] = {}
    for name, module in trained.model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            rules = module.get_submodule("parametrizations.weight")
            (rule,) = [each for each in rules.children() if isinstance(each, OnGrid)]
            grids[name] = rule.grid()
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return trained.replace(masks=origin.masks, grids=grids)
