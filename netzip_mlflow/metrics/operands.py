"""The nodes of a graph that multiply weights with activations, and which input is which.

One table for all forms of a layer: float, between Quantize- and DequantizeLinear, integer
operators, dynamically quantised. Every other node kind is known and uncounted, or an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.metrics.graph import Graph, inner_graphs

__all__ = ["NORMALISATIONS", "Operands", "attribute", "find"]


@dataclass(frozen=True)
class _Kind:
    """Positions of a node kind's inputs."""

    activation: int = 0
    weight: int = 1
    bias: int | None = None
    zero_point: int | None = None  # of the weight


_PRODUCT = _Kind()
_LAYERS: dict[str, _Kind] = {
    "Conv": _Kind(bias=2),
    "ConvInteger": _Kind(zero_point=3),
    "ConvTranspose": _Kind(bias=2),
    "DynamicQuantizeMatMul": _Kind(zero_point=3, bias=4),
    "FusedConv": _Kind(bias=2),
    "FusedGemm": _Kind(bias=2),
    "FusedMatMul": _PRODUCT,
    "Gemm": _Kind(bias=2),
    "MatMul": _PRODUCT,
    "MatMulInteger": _Kind(zero_point=3),
    "MatMulIntegerToFloat": _Kind(zero_point=5, bias=6),
    "NhwcFusedConv": _Kind(bias=2),
    "QGemm": _Kind(weight=3, zero_point=5, bias=6),
    "QLinearConv": _Kind(weight=3, zero_point=5, bias=8),
    "QLinearMatMul": _Kind(weight=3, zero_point=5),
    "TransposeMatMul": _PRODUCT,
}
_COMMUTING = frozenset({"MatMul", "FusedMatMul", "TransposeMatMul"})

NORMALISATIONS = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
    }
)


def _kinds(text: str) -> frozenset[str]:
    return frozenset(text.split())


_UNCOUNTED = NORMALISATIONS.union(
    # normalisation without parameters
    _kinds("LRN LpNormalization MeanVarianceNormalization"),
    # activations
    _kinds(
        """BiasGelu Celu Clip Elu Erf FastGelu Gelu HardSigmoid HardSwish Hardmax LeakyRelu
        LogSoftmax Mish PRelu QLinearLeakyRelu QLinearSigmoid QLinearSoftmax QuickGelu Relu Selu
        Shrink Sigmoid Softmax Softplus Softsign Swish Tanh ThresholdedRelu"""
    ),
    # elementwise
    _kinds(
        """Abs Add And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Cos Div Equal Exp
        Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not
        Or Pow QLinearAdd QLinearMul QLinearWhere Reciprocal Round Sign Sin Sqrt Sub Sum Where
        Xor"""
    ),
    # pooling and reductions
    _kinds(
        """ArgMax ArgMin AveragePool CumSum GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool
        MaxPool NhwcMaxPool NonMaxSuppression QLinearAveragePool QLinearGlobalAveragePool
        QLinearReduceMean ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
        ReduceMin ReduceProd ReduceSum ReduceSumSquare TopK"""
    ),
    # moving and casting numbers
    _kinds(
        """Cast CastLike Compress Concat ConstantOfShape DepthToSpace DequantizeLinear Dropout
        DynamicQuantizeLinear Expand EyeLike Flatten Gather GatherElements GatherND GridSample
        Identity NonZero OneHot Pad QLinearConcat QuantizeLinear Range Reshape Resize
        ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Trilu
        Unsqueeze Upsample"""
    ),
)
# Kinds that multiply inside, with or without weights of their own.
_UNKNOWN_COST = _kinds(
    """Attention DeformConv Einsum GRU GroupQueryAttention LSTM LinearAttention MultiHeadAttention
    PackedMultiHeadAttention QAttention RNN"""
)
_INDICES = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING})


@dataclass(frozen=True)
class Operands:
    """Names of one layer's tensors. `weight` is the second activation where neither is stored."""

    node: NodeProto
    activation: str
    weight: str
    bias: str
    zero_point: str

    @property
    def name(self) -> str:
        """The node's name, or that of its output where the file keeps no names."""
        return self.node.name or self.node.output[0]


def find(graph: Graph) -> list[Operands]:
    """The layers of a graph, in order; products of constants are values, not layers.

    Raises:
        InputError: naming every node whose operations cannot be counted, or when no layer is
            found.
    """
    layers: list[Operands] = []
    problems: list[Problem] = []
    for node in graph.nodes:
        if all(graph.is_constant(o) for o in node.output if o):
            continue
        if node.op_type in _LAYERS:
            layers.append(_operands(graph, node))
        elif reason := _reason_to_refuse(graph, node):
            name = node.name or node.output[0]
            problems.append(Problem(name, f"node kind {node.op_type} {reason}"))
    if problems:
        raise InputError(problems)
    if not layers:
        raise InputError("the graph holds no convolution and no matrix product")
    return layers


def attribute(node: NodeProto, name: str) -> int:
    """A whole-number attribute of a node, 0 where it is not given."""
    return next((a.i for a in node.attribute if a.name == name), 0)


def _operands(graph: Graph, node: NodeProto) -> Operands:
    kind = _LAYERS[node.op_type]

    def at(position: int | None) -> str:
        return node.input[position] if position is not None and position < len(node.input) else ""

    activation, weight = at(kind.activation), at(kind.weight)
    if node.op_type in _COMMUTING and graph.is_constant(activation):
        activation, weight = weight, activation
    return Operands(node, activation, weight, at(kind.bias), at(kind.zero_point))


def _reason_to_refuse(graph: Graph, node: NodeProto) -> str:
    """Why the operations of a node that is no layer cannot be passed over; empty when they can."""
    if any(_multiplies(inner) for g in inner_graphs(node) for inner in g.node):
        return "holds layers in an inner graph, and they cannot be counted"
    if node.op_type in _UNKNOWN_COST:
        return "multiplies matrices, and its operations cannot be counted"
    if node.op_type in _UNCOUNTED:
        return ""
    for name in node.input:
        if graph.is_constant(name) and graph.elem_type(name) not in _INDICES:
            count = math.prod(graph.shape(name))
            if count > 1:
                return f"takes a weight ({name}, {count} numbers) and is not known"
    return ""


def _multiplies(node: NodeProto) -> bool:
    if node.op_type in _LAYERS or node.op_type in _UNKNOWN_COST:
        return True
    return any(_multiplies(inner) for g in inner_graphs(node) for inner in g.node)
