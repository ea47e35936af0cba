"""Operations and bit widths, read off the deployable's graph node by node.

One multiplication with its addition is one MAC and two OPs. CHATS is the sum over layers of
OPs x bit width (arXiv 2305.10616, equation 5), the width being the wider of a layer's two
operands. Needs no torch, and holds for any ONNX file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, TensorProto

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.metrics.graph import Graph, bit_width
from netzip_mlflow.metrics.operands import Operands, attribute, find

__all__ = ["Layer", "layers", "totals"]

# Nodes that hand on the numbers of an input, so that its grid of codes is theirs too.
_HANDING_ON = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Pad",
        "Relu",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
)


@dataclass(frozen=True)
class Layer:
    """One node that multiplies, for one sample.

    Attributes:
        name: the node's name, or its output's.
        op: the node kind.
        output_shape: with the batch in front.
        macs, ops: multiplications with their additions; ops = 2 x macs.
        weight_bits, activation_bits: widths of the operands as the graph declares them.
        bits: the wider of the two.
        weight_bytes: what the file stores for the weight, packed, with the tables that unpack
            it, without scales and zero points; what layers share (a code book, one blob) is
            divided by their parameters.
        parameters: numbers that weight and bias stand for; 0 for a product of activations.
    """

    name: str
    op: str
    output_shape: tuple[int, ...]
    macs: int
    ops: int
    weight_bits: int
    activation_bits: int
    bits: int
    weight_bytes: float
    parameters: int


def layers(model: ModelProto) -> list[Layer]:
    """Every layer of the model, in the graph's order, for a batch of one.

    Raises:
        InputError: naming each node whose operations cannot be counted; when the graph holds no
            layer; when the input's size is open.
    """
    graph = Graph(model)
    found = find(graph)
    shares = _weight_bytes(graph, found)
    return [_layer(graph, operands, shares[i]) for i, operands in enumerate(found)]


def totals(layers: Sequence[Layer]) -> dict[str, float]:
    """Sums over layers: `macs`, `ops`, `chats` (OPs x bits), `mean_bits` (chats / ops; absent
    without operations), `layers` (their number)."""
    macs = sum(layer.macs for layer in layers)
    ops = sum(layer.ops for layer in layers)
    chats = sum(layer.ops * layer.bits for layer in layers)
    figures: dict[str, float] = {"macs": macs, "ops": ops, "chats": chats, "layers": len(layers)}
    if ops:
        figures["mean_bits"] = chats / ops
    return figures


def _layer(graph: Graph, operands: Operands, weight_bytes: float) -> Layer:
    node = operands.node
    output = graph.shape(node.output[0])
    macs = _macs(graph, operands, output)
    if macs % graph.batch:
        what = f"{macs} MACs do not divide by the file's batch of {graph.batch}"
        raise InputError(Problem(operands.name, what))
    macs //= graph.batch
    weight_bits = _declared_bits(graph, operands.weight)
    if node.op_type == "DynamicQuantizeMatMul":
        activation_bits = 8  # takes floats, quantises them inside
    else:
        activation_bits = _declared_bits(graph, operands.activation)
    return Layer(
        name=operands.name,
        op=node.op_type,
        output_shape=output,
        macs=macs,
        ops=2 * macs,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        bits=max(weight_bits, activation_bits),
        weight_bytes=weight_bytes,
        parameters=_count(graph, operands.weight) + _count(graph, operands.bias),
    )


def _macs(graph: Graph, operands: Operands, output: tuple[int, ...]) -> int:
    node, weight = operands.node, graph.shape(operands.weight)
    if node.op_type == "ConvTranspose":  # each input number meets (M / group) x kernel weights
        return math.prod(graph.shape(operands.activation)) * math.prod(weight[1:])
    if "Conv" in node.op_type:  # each output number sums (C / group) x kernel products
        return math.prod(output) * math.prod(weight[1:])
    left = graph.shape(node.input[0])
    transposed = attribute(node, "transA") and len(left) > 1
    return math.prod(output) * left[-2 if transposed else -1]


def _declared_bits(graph: Graph, name: str) -> int:
    """Bits of an operand: of its codes where it comes out of a DequantizeLinear, else its own."""
    return _code_bits(graph, name) or bit_width(graph.elem_type(name))


def _code_bits(graph: Graph, name: str) -> int:
    """Width of the codes behind a float tensor, 0 where it is not dequantised."""
    node = graph.producer.get(name)
    if node is None:
        return 0
    if node.op_type == "DequantizeLinear":
        return bit_width(graph.elem_type(node.input[0]))
    if node.op_type == "Concat":
        widths = [_code_bits(graph, i) for i in node.input]
        return max(widths) if all(widths) else 0
    between_floats = node.op_type == "Cast" and graph.elem_type(node.input[0]) in _FLOATS
    if node.op_type in _HANDING_ON or between_floats:
        return _code_bits(graph, node.input[0])
    return 0


def _weight_bytes(graph: Graph, found: Sequence[Operands]) -> list[float]:
    """Stored bytes per layer, scales and zero points apart."""
    leaves = [_code_leaves(graph, operands.weight) for operands in found]
    counts = [_count(graph, operands.weight) for operands in found]
    users: dict[str, int] = {}
    for names, count in zip(leaves, counts, strict=True):
        for name in names:
            users[name] = users.get(name, 0) + count
    return [
        sum(size * count / users[name] for name, size in names.items())
        for names, count in zip(leaves, counts, strict=True)
    ]


def _code_leaves(graph: Graph, name: str) -> dict[str, int]:
    """The stored tensors behind a weight's codes: name -> bytes."""
    return graph.leaves(graph.root(name)) if graph.is_constant(name) else {}


def _count(graph: Graph, name: str) -> int:
    return math.prod(graph.shape(name)) if name and graph.is_constant(name) else 0
