"""Pruned weights in the file: a bit says whether a number is zero, and the others follow in a row.

The nodes that put the zeros back depend on stored numbers alone, so that a runtime folds them when
it loads the file and executes what it would execute without them: the same kernels, at the same
speed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from netzip_mlflow.deployable.compact import compact
from netzip_mlflow.deployable.encodings import Storage, split
from netzip_mlflow.metrics.graph import bit_width

__all__ = ["pack_zeros"]

PLAIN = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8)
WIDENED = (TensorProto.BFLOAT16, TensorProto.INT4)  # by a Cast; the runtime gathers none of them
PART = 64  # bytes that a tensor takes in a row: its size, its shape, two nodes


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor as it lies in the file, and the type that its readers get."""

    array: np.ndarray
    stored: int
    read: int


def pack_zeros(model: onnx.ModelProto) -> onnx.ModelProto:
    """A compact graph without its zeros, where that makes the file smaller; else the graph itself.

    Each type of numbers has one row for the tensors of two axes or more that gain by it. What the
    graph computes stays equal to the last bit, but that a zero has lost its sign.
    """
    rows: dict[tuple[int, int], dict[str, Stored]] = {}
    for name, tensor in _tensors(model.graph):
        zeros = tensor.array.size - np.count_nonzero(tensor.array)
        if zeros * bit_width(tensor.stored) > tensor.array.size + 8 * PART:
            rows.setdefault((tensor.stored, tensor.read), {})[name] = tensor
    if not rows:
        return model
    storages = [_row(stored, read, tensors) for (stored, read), tensors in rows.items()]
    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    _put(packed.graph, storages)
    packed = compact(packed)
    return packed if packed.ByteSize() < model.ByteSize() else model


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, Stored]]:
    """Tensors of two axes or more, by the name under which they are read."""
    stored = {t.name: t for t in graph.initializer if len(t.dims) > 1}
    readers = Counter(name for node in graph.node for name in node.input)
    for name, tensor in stored.items():
        if tensor.data_type in PLAIN:
            yield name, Stored(numpy_helper.to_array(tensor), tensor.data_type, tensor.data_type)
    for node in graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None or tensor.data_type not in WIDENED or readers[tensor.name] > 1:
            continue
        (to,) = (a.i for a in node.attribute if a.name == "to")
        yield node.output[0], Stored(numpy_helper.to_array(tensor), tensor.data_type, to)


def _row(stored: int, read: int, tensors: Mapping[str, Stored]) -> Storage:
    """One row for tensors of a type: number = values[place], place = mask x (ones up to here).

    `values` begins with a zero, which is what all places without a number read.
    """
    name = f"zeros{stored}to{read}"
    flat = np.concatenate([tensor.array.ravel() for tensor in tensors.values()])
    mask = flat != 0
    constants = {
        "bytes": np.packbits(mask, bitorder="little")[:, None],
        "bits": 1 << np.arange(8, dtype=np.uint8)[None],
        "row": np.array([-1]),
        "axis": np.array(0),
        "values": np.append(np.zeros(1, flat.dtype), flat[mask]),
    }
    widened = read != stored
    steps = [
        ("BitwiseAnd", ["bytes", "bits"], "found", {}),
        ("Cast", ["found"], "set", {"to": TensorProto.BOOL}),  # any bit that is set is one
        ("Reshape", ["set", "row"], "all", {}),
        ("Cast", ["all"], "mask", {"to": TensorProto.INT32}),
        ("CumSum", ["mask", "axis"], "count", {}),
        ("Mul", ["mask", "count"], "places", {}),
        *([("Cast", ["values"], "wide", {"to": read})] if widened else []),
        ("Gather", ["wide" if widened else "values", "places"], "numbers", {"axis": 0}),
    ]
    nodes = [
        helper.make_node(op, [f"{name}/{i}" for i in inputs], [f"{name}/{output}"], **attributes)
        for op, inputs, output, attributes in steps
    ]
    initializers = [numpy_helper.from_array(array, f"{name}/{n}") for n, array in constants.items()]
    shapes = {layer: tensor.array for layer, tensor in tensors.items()}
    parts = split(name, f"{name}/numbers", shapes, -len(flat) % 8)
    return Storage((*initializers, *parts.initializers), (*nodes, *parts.nodes))


def _put(graph: onnx.GraphProto, storages: list[Storage]) -> None:
    """Let nodes make what was stored, or cast, under the same names."""
    nodes = [node for storage in storages for node in storage.nodes]
    made = {output for node in nodes for output in node.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name not in made]
    others = [node for node in graph.node if made.isdisjoint(node.output)]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(tensors)
    for storage in storages:
        graph.initializer.extend(storage.initializers)
    graph.node.extend([*nodes, *others])
