"""How large a deployable is: on disk, deflated, in parameters and in non-zero parameters."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import uses_external_data

from netzip_mlflow.errors import InputError
from netzip_mlflow.metrics.graph import Graph, read_model
from netzip_mlflow.metrics.operands import NORMALISATIONS, Operands, attribute, find

__all__ = ["parameters", "sizes"]

_READ = 1 << 20  # bytes at a time


def sizes(path: str | Path) -> dict[str, float]:
    """Figures of one ONNX file; external data, where a file has it, belongs to the file.

    Returns:
        `disk_bytes`; `zip_bytes`: deflated at level 9, without an archive's own headers;
        `parameters`, `nonzero` (see `parameters`); `sparsity`: 1 - nonzero / parameters.

    Raises:
        InputError: when the file is missing or no ONNX file, or its layers cannot be told.
    """
    model = read_model(path)
    files = [Path(path), *_external_files(Path(path))]
    try:
        count, nonzero = parameters(model)
    except InputError as error:
        raise InputError(error.problems, source=str(path)) from None
    return {
        "disk_bytes": sum(file.stat().st_size for file in files),
        "zip_bytes": sum(_deflated(file) for file in files),
        "parameters": count,
        "nonzero": nonzero,
        "sparsity": 1 - nonzero / count if count else 0.0,
    }


def parameters(model: ModelProto) -> tuple[int, int]:
    """How many numbers the weights and biases stand for, and how many of those are not zero.

    Counted: weights and biases of convolutions and matrix products (a bias also where it is
    added by a node behind the layer), scales and biases of normalisations, slopes of PRelu,
    tables of embeddings, tokens and positions added to the stream. Packed numbers count as what
    they unpack to, one weight used twice counts once. Not counted: scales and zero points of a
    quantisation, code books, running statistics, the normalisation of the input.

    Raises:
        InputError: as `operands.find`.
    """
    graph = Graph(model)
    seen: set[str] = set()
    count = nonzero = 0
    for name, zero in _learned(graph, find(graph)):
        numbers = graph.value(name)
        # Equal constants may share one place in a file (zero biases do): that is bookkeeping.
        # A shared matrix of different numbers is one weight, used twice.
        if numbers.ndim > 1 and numbers.min() < numbers.max():
            root = graph.root(name)
            if root in seen:
                continue
            seen.add(root)
        count += numbers.size
        nonzero += int(np.count_nonzero(numbers != zero))
    return count, nonzero


def _learned(graph: Graph, layers: list[Operands]) -> Iterator[tuple[str, np.ndarray]]:
    """Constant tensors that hold parameters: name, and the number that stands for zero there."""
    operands_of = {id(operands.node): operands for operands in layers}
    behind: set[str] = set()  # tensors that some layer has a part in
    for node in graph.nodes:
        if all(graph.is_constant(o) for o in node.output if o):
            continue
        operands = operands_of.get(id(node))
        if operands is None:
            found = _beside_layers(node, behind)
        else:
            found = [(operands.weight, operands.zero_point), (operands.bias, "")]
        if operands is not None or not behind.isdisjoint(node.input):
            behind.update(node.output)
        for name, zero_point in found:
            if graph.is_constant(name) and (operands is not None or _is_numeric(graph, name)):
                yield name, _zero(graph, node, name, zero_point)


def _beside_layers(node: NodeProto, behind: set[str]) -> list[tuple[str, str]]:
    """Inputs that may be parameters of a node which is no layer, with their zero points."""
    kind, names = node.op_type, list(node.input)
    if kind in NORMALISATIONS:
        return [(name, "") for name in names[1:3]]
    if kind == "PRelu":
        return [(names[1], "")]
    if kind in ("Gather", "Expand"):  # a table of embeddings, a token for every sample
        return [(names[0], "")]
    if behind.isdisjoint(names):
        return []
    if kind == "QLinearAdd":
        return [(names[0], names[2]), (names[3], names[5])]
    return [(name, "") for name in names] if kind in ("Add", "Concat") else []


def _zero(graph: Graph, node: NodeProto, name: str, zero_point: str) -> np.ndarray:
    """What the numbers of `name` are compared with to be zero; broadcasts against them."""
    if not graph.is_constant(zero_point):
        return np.zeros((), np.int64)
    zero = graph.value(zero_point).astype(np.int64)
    if zero.size <= 1:
        return zero.reshape(())
    # One zero point per output: the first axis of a kernel, the last of a matrix.
    shape = [1] * len(graph.shape(name))
    shape[0 if "Conv" in node.op_type or attribute(node, "transB") else -1] = zero.size
    return zero.reshape(shape)


def _is_numeric(graph: Graph, name: str) -> bool:
    """Whether a tensor can hold parameters: more than one number, and no sizes or indices."""
    indices = (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)
    return graph.value(name).size > 1 and graph.elem_type(name) not in indices


def _external_files(path: Path) -> list[Path]:
    graph = onnx.load(path, load_external_data=False).graph
    places = {
        entry.value
        for tensor in graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path.parent / place for place in sorted(places)]


def _deflated(path: Path) -> int:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = 0
    with path.open("rb") as file:
        while piece := file.read(_READ):
            size += len(squeeze.compress(piece))
    return size + len(squeeze.flush())
