"""Which channels of a network can be removed together, and removing them.

torch-pruning follows a network through autograd and finds what hangs on what (Fang et al.,
DepGraph, arXiv 2301.12900). It takes operations that it does not know for ones that leave channels
as they are, so what it finds is believed only once it has been proved: a network without some
channels must answer exactly like the whole one that no longer reads them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Any, NamedTuple

from netzip_mlflow.edits.dependencies import MISFITS, outputs, reading, trace
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.signature import outputs_of

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Found", "Group", "Reach", "Removal", "channel_sums", "find_groups", "remove", "replay"]


class Removal(NamedTuple):
    """Output channels of a layer that go, with all that hangs on them, elsewhere too."""

    layer: str
    channels: list[int]


class Reach(NamedTuple):
    """How far a group reaches into a convolution or linear layer: its output channels that go, or,
    where it `reads`, its input channels; `roots` are the channels of the group they belong to.
    """

    layer: str
    reads: bool
    channels: list[int]
    roots: list[int]


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that hang together: the outputs of `layer`, in equal blocks that lose the same ones
    (grouped convolutions, attention heads); what is ranked is a unit, one channel of every block.
    """

    layer: str
    channels: int
    blocks: int
    reaches: tuple[Reach, ...]
    provable: bool

    @property
    def units(self) -> int:
        return self.channels // self.blocks

    def removal(self, units: Iterable[int]) -> Removal:
        """What to remove for some units to go."""
        chosen = list(units)
        return Removal(
            self.layer, sorted(b * self.units + u for b in range(self.blocks) for u in chosen)
        )


class Found(NamedTuple):
    """The groups that can be pruned, and the layers whose group failed its proof."""

    groups: tuple[Group, ...]
    unproved: tuple[str, ...]


def find_groups(model: nn.Module, shape: Sequence[int], kept: Iterable[nn.Module]) -> Found:
    """Every group of a network for inputs of `shape` (C, H, W), without its output's and those of
    `kept` modules.

    Raises:
        NetzipError: the network cannot be traced.
    """
    graph = trace(model, shape)
    groups = _groups(graph, model, {module for each in kept for module in each.modules()})
    proof = _Proof(model, shape)
    sound: list[Group] = []
    for provable in (True, False):
        some = [g for g in groups if g.provable == provable]
        if not proof.holds(some):  # one proof for all is mostly enough
            some = [g for g in some if proof.holds([g])]
            some = some if proof.holds(some) else []
        sound += some
    names = {g.layer for g in sound}
    return Found(
        tuple(g for g in groups if g.layer in names),
        tuple(g.layer for g in groups if g.layer not in names),
    )


def remove(model: nn.Module, shape: Sequence[int], removals: Iterable[Removal]) -> None:
    """Remove channels in place, one group after the other; the rest keeps its values.

    Raises:
        NetzipError: the network cannot be traced, or has no such channels.
    """
    import torch

    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    graph = trace(model, shape)
    for layer, channels in removals:
        try:
            module = model.get_submodule(layer)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                coupled = graph.get_pruning_group(module, outputs(graph, module), channels)
            coupled.prune(record_history=False)
        except MISFITS as error:
            raise NetzipError(
                f"prune_channels: channels {channels} of layer {layer!r} cannot be removed: {error}"
            ) from error
    for name, weight in model.named_parameters():
        weight.requires_grad_(trained[name]).grad = None
    model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]


def _groups(graph: Any, model: nn.Module, kept: set[nn.Module]) -> list[Group]:
    from torch import nn
    from torch_pruning import ops

    names = {module: name for name, module in model.named_modules()}
    roots = [nn.modules.conv._ConvNd, nn.Linear]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            coupled = list(graph.get_all_groups(ignored_layers=[*kept], root_module_types=roots))
    except MISFITS as error:
        raise NetzipError(
            f"prune_channels: the layers of {type(model).__name__} cannot be told apart:"
            f" {type(error).__name__}: {error}"
        ) from error
    unprovable = {ops.OPTYPE.LN, ops.OPTYPE.GN, ops.OPTYPE.MHA, ops.OPTYPE.LSTM, ops.OPTYPE.EMBED}
    groups = []
    for each in coupled:
        targets = [dep.target for dep, _ in each]
        if any(not dep.target.outputs and dep.handler not in reading() for dep, _ in each):
            continue  # of an output: its shape is the task's
        channels, blocks = len(each[0].idxs), _blocks(targets)
        if channels % blocks or channels == blocks:
            continue
        groups.append(
            Group(
                layer=names[targets[0].module],
                channels=channels,
                blocks=blocks,
                reaches=tuple(_reaches(each, names)),
                provable=not unprovable & {t.type for t in targets},
            )
        )
    return groups


def _blocks(targets: list[Any]) -> int:
    """In how many equal blocks the channels of a group lie: the least that suits all layers."""
    from torch import nn

    counts = {1}
    for module in (t.module for t in targets):
        if isinstance(module, nn.MultiheadAttention):
            counts.add(module.num_heads)
        elif isinstance(module, nn.GroupNorm):
            counts.add(module.num_groups)
        elif isinstance(module, nn.modules.conv._ConvNd) and module.groups < module.out_channels:
            counts.add(module.groups)
    return lcm(*counts)


def _reaches(coupled: Any, names: dict[nn.Module, str]) -> Iterable[Reach]:
    from torch import nn

    for item in coupled:
        module, reads = item.dep.target.module, item.dep.handler in reading()
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            pairs = [
                (i, r) for i, r in zip(item.idxs, item.root_idxs, strict=True) if r is not None
            ]
            yield Reach(names[module], reads, [i for i, _ in pairs], [r for _, r in pairs])


def _by_channel(module: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """A weight's values as (groups, outputs a group, inputs a group, positions)."""
    groups = getattr(module, "groups", 1)
    flat = values.reshape(groups, values.shape[0] // groups, values.shape[1], -1)
    return flat.transpose(1, 2) if getattr(module, "transposed", False) else flat


def channel_sums(module: nn.Module, values: torch.Tensor, reads: bool) -> torch.Tensor:
    """Sums of a weight's values by input channel (`reads`) or by output channel, a vector."""
    return _by_channel(module, values).sum((1, 3) if reads else (2, 3)).flatten()


class _Proof:
    """An identity, on a copy whose parameters are jittered so that no dead channel hides a mistake:
    removing channels changes the answer exactly as not reading them does.

    LayerNorm, GroupNorm and attention see how many channels there are, so what reaches into them
    is only run.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int]) -> None:
        import torch

        self.shape = shape
        self.draw = torch.Generator().manual_seed(0)
        self.model = copy.deepcopy(model).cpu().eval()
        self.model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        with torch.no_grad():
            for weight in self.model.parameters():
                noise = torch.randn(weight.shape, generator=self.draw)
                weight.add_(noise, alpha=0.1 * float(weight.abs().mean()) + 1e-3)
        self.sample = torch.randn(2, *shape, generator=self.draw)
        self.close, self.noise = 1e-3, 1e-5
        try:
            self.whole = self._answer(self.model.double(), self.sample.double())
            self.sample, self.close, self.noise = self.sample.double(), 1e-6, 1e-11
        except MISFITS:  # its forward insists on float32
            self.whole = self._answer(self.model.float(), self.sample)

    @staticmethod
    def _answer(model: nn.Module, sample: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.no_grad():
            return torch.cat([each.flatten(1) for each in outputs_of(model(sample))], 1)

    def holds(self, groups: Sequence[Group]) -> bool:
        """Whether a random half of the units of these groups can go, all together."""
        import torch

        if not groups:
            return True
        chosen = [
            (g, g.removal(torch.randperm(g.units, generator=self.draw)[: g.units // 2].tolist()))
            for g in groups
        ]
        pruned = copy.deepcopy(self.model)
        try:
            remove(pruned, self.shape, [removal for _, removal in chosen])
            answer = self._answer(pruned, self.sample)
        except (NetzipError, *MISFITS):
            return False
        if answer.shape != self.whole.shape:
            return False
        if not all(group.provable for group in groups):
            return True
        unread = copy.deepcopy(self.model)
        for group, removal in chosen:
            _unread(unread, group, set(removal.channels))
        expected = self._answer(unread, self.sample)
        change = float((expected - self.whole).abs().max())
        allowed = max(self.close * change, self.noise * float(self.whole.abs().max()))
        return float((answer - expected).abs().max()) <= allowed


def _unread(model: nn.Module, group: Group, gone: set[int]) -> None:
    """Zero the weights by which layers read those channels of a group."""
    import torch

    for reach in group.reaches:
        if reach.reads:
            module = model.get_submodule(reach.layer)
            weight = _by_channel(module, module.get_parameter("weight").data)
            pairs = zip(reach.channels, reach.roots, strict=True)
            channels = torch.tensor([c for c, root in pairs if root in gone], dtype=torch.long)
            per_group = weight.shape[2]
            weight[channels // per_group, :, channels % per_group] = 0


def replay(model: nn.Module, data: Mapping[str, Any]) -> nn.Module:
    """The same channels removed from a freshly built network."""
    for step in data["steps"]:
        remove(model, data["input"], [Removal(*removal) for removal in step])
    return model
