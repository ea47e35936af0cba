"""The stripping and naming pass: every deployable gets it, the baseline included.

A file of a small network can be a fifth bookkeeping: stack traces, long names, default
attributes, zero points that are zero. `compact` removes what no runtime needs and changes no
value that the graph computes, so that a ratio of two sizes speaks of the networks.
"""

from __future__ import annotations

import heapq
import string
from collections import Counter
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from itertools import product

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["compact"]


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` that computes the same and carries nothing else.

    Inputs and outputs keep their names and shapes. Metadata, documentation, node names, inferred
    shapes and default attributes go; equal constants are shared; zero points of biases are
    left to their default; a bias scale that equals input scale x weight scale is computed from
    those two (runtimes fold it when they load the file). What only moves numbers between a
    dequantisation and a quantisation by the same scale and zero point moves the codes.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    _strip(small)
    _constants_to_initialisers(small.graph)
    for node in small.graph.node:
        _drop_default_attributes(node)
    _drop_zero_points(small.graph)
    _drop_allowed_zeros(small.graph)
    _derive_bias_scales(small.graph)
    _share_equal_constants(small.graph)
    _move_codes(small.graph)
    _drop_dead_nodes(small.graph)
    _drop_unused(small.graph)
    _sort(small.graph)
    _rename(small.graph)
    _drop_unused_opsets(small)
    least = helper.find_min_ir_version_for(small.opset_import, ignore_unknown=True)
    small.ir_version = min(small.ir_version, least)  # so that older runtimes read it too
    return small


def _strip(model: onnx.ModelProto) -> None:
    graph = model.graph
    model.producer_name, graph.name = "netzip-mlflow", "g"
    for field in ("doc_string", "producer_version", "domain", "model_version", "metadata_props"):
        model.ClearField(field)
    for field in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
        graph.ClearField(field)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    for node in _nodes(graph):
        for field in ("name", "doc_string", "metadata_props"):
            node.ClearField(field)


def _constants_to_initialisers(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        value = next((a for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    for index, tensor in enumerate(graph.initializer):
        if not tensor.raw_data and tensor.data_type != onnx.TensorProto.STRING:
            array = numpy_helper.to_array(tensor)
            graph.initializer[index].CopyFrom(numpy_helper.from_array(array, tensor.name))


def _all(value: int) -> Callable[[onnx.AttributeProto], bool]:
    return lambda a: all(v == value for v in (a.ints or [a.i]))


def _number(value: float) -> Callable[[onnx.AttributeProto], bool]:
    return lambda a: (a.f if a.type == onnx.AttributeProto.FLOAT else a.i) == value


_CONVOLUTION = {
    "dilations": _all(1),
    "strides": _all(1),
    "pads": _all(0),
    "group": _number(1),
    "kernel_shape": lambda _: True,  # read off the weight's shape
    "auto_pad": lambda a: a.s == b"NOTSET",
}
_POOLING = {k: _CONVOLUTION[k] for k in ("dilations", "strides", "pads", "auto_pad")} | {
    "ceil_mode": _number(0),
    "storage_order": _number(0),
    "count_include_pad": _number(0),
}
DEFAULTS: dict[str, dict[str, Callable[[onnx.AttributeProto], bool]]] = {
    "Conv": _CONVOLUTION,
    "MaxPool": _POOLING,
    "AveragePool": _POOLING,
    "Gemm": {
        "alpha": _number(1),
        "beta": _number(1),
        "transA": _number(0),
        "transB": _number(0),
    },
    "DequantizeLinear": {"axis": _number(1), "block_size": _number(0), "output_dtype": _number(0)},
    "QuantizeLinear": {
        "axis": _number(1),
        "block_size": _number(0),
        "saturate": _number(1),
        "output_dtype": _number(0),
        "precision": _number(0),
    },
    "Pad": {"mode": lambda a: a.s == b"constant"},
    "Flatten": {"axis": _number(1)},
    "Cast": {"saturate": _number(1)},
    "Reshape": {"allowzero": _number(0)},
    "ReduceMean": {"keepdims": _number(1), "noop_with_empty_axes": _number(0)},
}


def _drop_default_attributes(node: onnx.NodeProto) -> None:
    if node.domain:
        return
    rules = DEFAULTS.get(node.op_type, {})
    kept = [a for a in node.attribute if not (a.name in rules and rules[a.name](a))]
    for attribute in kept:
        attribute.ClearField("doc_string")
    del node.attribute[:]
    node.attribute.extend(kept)


def _initialisers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {t.name: t for t in graph.initializer}


def _drop_zero_points(graph: onnx.GraphProto) -> None:
    """Leave out the zero points of int32 biases: they are zero, which is their default.

    Those of activations and int8 weights stay, although the default says the same: without them
    ONNX Runtime 1.32 fuses neither Gemm nor Pad (seen), and computes them in float.
    """
    constants = _initialisers(graph)
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3:
            continue
        zero = constants.get(node.input[2])
        if zero is None or zero.data_type != onnx.TensorProto.INT32:
            continue
        if not numpy_helper.to_array(zero).any():
            del node.input[2]


def _drop_allowed_zeros(graph: onnx.GraphProto) -> None:
    """Leave out `allowzero` where the shape is a constant without a zero to speak of."""
    constants = _initialisers(graph)
    for node in graph.node:
        ours = node.op_type == "Reshape" and not node.domain
        shape = constants.get(node.input[1]) if ours else None
        if shape is not None and numpy_helper.to_array(shape).all():
            del node.attribute[:]  # it has no other


def _derive_bias_scales(graph: onnx.GraphProto) -> None:
    """Compute int32 bias scales in the graph, where they are exactly input scale x weight scale."""
    constants = _initialisers(graph)
    makers = {output: node for node in graph.node for output in node.output}
    derived: dict[tuple[str, str], str] = {}
    products: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type not in {"Conv", "Gemm"} or len(node.input) < 3:
            continue
        sources = [makers.get(name) for name in node.input[:3]]
        if any(s is None or s.op_type != "DequantizeLinear" for s in sources):
            continue
        scale_x, scale_w, scale_b = (s.input[1] for s in sources if s is not None)
        bias = sources[2]
        if bias is None or not {scale_x, scale_w, scale_b} <= constants.keys():
            continue
        x, w, b = (numpy_helper.to_array(constants[n]) for n in (scale_x, scale_w, scale_b))
        if b.size < 8 or not np.array_equal((x * w).astype(np.float32), b):
            continue
        if (scale_x, scale_w) not in derived:
            derived[scale_x, scale_w] = f"{scale_b}.product"
            output = derived[scale_x, scale_w]
            products.append(helper.make_node("Mul", [scale_x, scale_w], [output]))
        bias.input[1] = derived[scale_x, scale_w]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*products, *rest])


def _share_equal_constants(graph: onnx.GraphProto) -> None:
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    outputs = {o.name for o in graph.output}
    for tensor in graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if tensor.name not in outputs and tensor.data_type != onnx.TensorProto.STRING:
            same[tensor.name] = first.setdefault(key, tensor.name)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)


MOVES = frozenset({"Flatten", "MaxPool", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze"})


def _move_codes(graph: onnx.GraphProto) -> None:
    """Let `MOVES` take codes where their numbers become the same codes again.

    Quantising what was dequantised by the same scale and zero point gives the codes back, and
    these operators choose among numbers by place or order only. Scales of one number alone: those
    along an axis may be for another axis after the move. Equal constants have one name by now.
    """
    scalars = {t.name for t in graph.initializer if not t.dims}
    makers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    inner = (name for node in graph.node for i in _inner_nodes(node) for name in i.input)
    for name in (*inner, *(o.name for o in graph.output)):
        readers[name] = []  # they need the numbers
    replaced = set()  # outputs of the quantisations that are needed no more
    for node in graph.node:
        source = makers.get(node.input[0]) if node.op_type in MOVES and not node.domain else None
        if source is None or source.op_type != "DequantizeLinear":
            continue
        codes, *scale = source.input
        if len(scale) < 2 or not scalars.issuperset(scale):
            continue
        ends = [readers.get(name, []) for name in node.output]
        if all(len(e) == 1 and _quantises(e[0], scale) for e in ends):
            node.input[0] = codes
            node.output[:] = [end.output[0] for (end,) in ends]
            replaced |= set(node.output)
    kept = [n for n in graph.node if n.op_type != "QuantizeLinear" or n.output[0] not in replaced]
    del graph.node[:]
    graph.node.extend(kept)


def _quantises(node: onnx.NodeProto, scale: list[str]) -> bool:
    return node.op_type == "QuantizeLinear" and list(node.input[1:]) == scale


def _drop_dead_nodes(graph: onnx.GraphProto) -> None:
    """Nodes that nobody reads, such as those that made a bias which was replaced."""
    while True:
        used = {o.name for o in graph.output} | {n for node in _nodes(graph) for n in node.input}
        kept = [node for node in graph.node if used & set(node.output)]
        if len(kept) == len(graph.node):
            return
        del graph.node[:]
        graph.node.extend(kept)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {o.name for o in graph.output} | {n for node in _nodes(graph) for n in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    inputs = [i for i in graph.input if i.name not in {t.name for t in graph.initializer}]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.input[:]
    graph.input.extend(inputs)


def _sort(graph: onnx.GraphProto) -> None:
    """Producers before consumers, as ONNX wants it: the float16 converter appends its casts."""
    makers = {output: i for i, node in enumerate(graph.node) for output in node.output if output}
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for index, node in enumerate(graph.node):
        read = (*node.input, *(n for inner in _inner_nodes(node) for n in inner.input))
        sorter.add(index, *{makers[name] for name in read if name in makers} - {index})
    sorter.prepare()
    ready, order = list(sorter.get_ready()), []
    heapq.heapify(ready)
    while ready:
        order.append(heapq.heappop(ready))
        sorter.done(order[-1])
        for index in sorter.get_ready():
            heapq.heappush(ready, index)
    nodes = [graph.node[index] for index in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs too."""
    for node in graph.node:
        yield node
        yield from _inner_nodes(node)


def _inner_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for attribute in node.attribute:
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
            yield from _nodes(inner)


def _rename(graph: onnx.GraphProto) -> None:
    if any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute):
        return  # names of subgraphs may refer outwards; such graphs keep theirs
    fixed = {v.name for v in (*graph.input, *graph.output)} | {""}
    tensors = [*graph.initializer, *(s.values for s in graph.sparse_initializer)]
    uses = Counter(n for node in graph.node for field in (node.input, node.output) for n in field)
    uses.update(tensor.name for tensor in tensors)
    names = (n for n in _short_names() if n not in fixed)
    often = (name for name, _ in uses.most_common() if name not in fixed)
    new = {name: name for name in fixed} | dict(zip(often, names, strict=False))
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = new[name]
    for tensor in tensors:
        tensor.name = new[tensor.name]


def _short_names() -> Iterator[str]:
    for length in (1, 2, 3, 4):
        for letters in product(string.ascii_letters, repeat=length):
            yield "".join(letters)


def _drop_unused_opsets(model: onnx.ModelProto) -> None:
    used = {node.domain for node in _nodes(model.graph)} | {f.domain for f in model.functions}
    kept = [o for o in model.opset_import if o.domain in used or o.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(kept)
