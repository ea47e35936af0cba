"""The border to torch-pruning: its graph of what hangs on what, with what it gets wrong put right.

It follows a network through autograd (Fang et al., DepGraph, arXiv 2301.12900) and takes operations
that it does not know for ones that leave channels as they are.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import NetzipError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MISFITS", "outputs", "reading", "trace"]

# what torch-pruning and a network's own forward raise on shapes that do not fit
MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError),
    *(TypeError, ValueError),
)


def trace(model: nn.Module, shape: Sequence[int]) -> Any:
    """torch-pruning's graph of a network, which is put into eval mode."""
    import torch

    flags = [(p, p.requires_grad) for p in model.parameters()]
    like = next((p for p, _ in flags), torch.empty(0))
    sample = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            for weight, _ in flags:
                weight.requires_grad_(True)  # it follows gradients, through frozen layers too
            return _graph_class()().build_dependency(model, (sample,), verbose=False)
    except MISFITS as error:
        raise NetzipError(
            f"prune_channels: {type(model).__name__} cannot be traced for inputs of"
            f" {'x'.join(map(str, shape))}: {type(error).__name__}: {error}"
        ) from error
    finally:
        for weight, trained in flags:
            weight.requires_grad_(trained)


def outputs(graph: Any, module: nn.Module) -> Any:
    """torch-pruning's function that takes output channels off such a module."""
    return graph.get_pruner_of_module(module).prune_out_channels


def reading() -> tuple[Any, ...]:
    """torch-pruning's functions that take input channels and leave output channels alone."""
    from torch_pruning.pruner import function

    return function.prune_conv_in_channels, function.prune_linear_in_channels


@functools.cache
def _graph_class() -> type:
    import torch_pruning
    from torch_pruning import ops
    from torch_pruning.pruner.function import LayernormPruner

    class LayerNorms(LayernormPruner):
        """torch-pruning 1.6 takes the kept weights in the order of a set, which is not theirs."""

        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            width = layer.normalized_shape[-1]
            keep = sorted(set(range(width)) - set(idxs))
            for name in ("weight", "bias"):
                if (values := getattr(layer, name)) is not None:
                    setattr(layer, name, self._prune_parameter_and_grad(values, keep, -1))
            layer.normalized_shape = (*layer.normalized_shape[:-1], len(keep))
            return layer

        prune_in_channels = prune_out_channels

    class Graph(torch_pruning.DependencyGraph):
        def __init__(self) -> None:
            super().__init__()
            norms = LayerNorms()
            self.REGISTERED_PRUNERS[ops.OPTYPE.LN] = norms
            self._in_channel_pruning_fn.add(norms.prune_in_channels)
            self._out_channel_pruning_fn.add(norms.prune_out_channels)

        def _trace(self, *arguments: Any, **named: Any) -> Any:
            """Shuffles of channels or windows are no flattening, and where there are some, sizes of
            splits cannot be told: taken as if they left channels alone, up to the proof."""
            nodes = super()._trace(*arguments, **named)
            if any(map(_shuffles, nodes.values())):
                for node in nodes.values():
                    if node.type in (ops.OPTYPE.RESHAPE, ops.OPTYPE.SPLIT):
                        node.type = ops.OPTYPE.ELEMENTWISE
            return nodes

    return Graph


def _shuffles(node: Any) -> bool:
    """Whether it reshapes something of five dimensions or more: channels or windows shuffled."""
    from torch_pruning import ops

    if node.type != ops.OPTYPE.RESHAPE:
        return False
    sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", None)
    return len(sizes or getattr(node.grad_fn, "_saved_self_sizes", ())) > 4
