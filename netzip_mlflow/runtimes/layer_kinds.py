"""Which nodes of a graph are layers, in which arithmetic: what a graph executes as it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from netzip_mlflow.runtimes.protocol import Executed

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = ["FLOAT_LAYERS", "INT8_LAYERS", "count"]

INT8_LAYERS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
        "QLinearConvTranspose",
        "QLinearMatMul",
    }
)
FLOAT_LAYERS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "FusedMatMulActivation",
        "Gemm",
        "MatMul",
        "MatMulNBits",
        "NhwcConv",
        "NhwcFusedConv",
        "TransposeMatMul",
    }
)
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul"})


def count(graph: GraphProto) -> Executed:
    """What a graph executes when nothing of it is folded or fused any more."""
    kinds: Counter[str] = Counter()
    floating: list[str] = []
    for node in _nodes(graph):
        kinds[node.op_type] += 1
        if node.op_type in FLOAT_LAYERS:
            floating.append(node.name or node.output[0])
    int8 = sum(kinds[kind] for kind in INT8_LAYERS)
    return Executed(
        layers=int8 + len(floating),
        int8_layers=int8,
        float_layers=tuple(floating),
        casts=kinds["Cast"],
        conversions=kinds["QuantizeLinear"] + kinds["DequantizeLinear"],
        dynamic_nodes=sum(kinds[kind] for kind in _DYNAMIC),
    )


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of inner graphs (If, Loop) too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
