"""An ONNX graph read for measuring: which tensors are constant, their values, types and shapes.

Weights may be stored in any way that graph nodes unpack (fewer bits, code books, one blob that
is split): whatever follows from constants alone is evaluated here, never guessed by pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    ValueInfoProto,
    checker,
    helper,
    inliner,
    numpy_helper,
    shape_inference,
)
from onnx.reference import ReferenceEvaluator

from netzip_mlflow import runtimes
from netzip_mlflow.errors import InputError, NetzipError, Problem

__all__ = ["STANDARD", "Graph", "bit_width", "inner_graphs", "read_model"]

NUMBERS = 2**28  # that a constant may be unpacked to: 1 GiB in single precision
STANDARD = ("", "ai.onnx")  # the domain of ONNX's own operators

_BITS = {
    **dict.fromkeys(("INT2", "UINT2"), 2),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("FLOAT6E2M3", "FLOAT6E3M2"), 6),
    **dict.fromkeys(("INT8", "UINT8", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ"), 8),
    **dict.fromkeys(("FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"), 8),
    **dict.fromkeys(("INT16", "UINT16", "FLOAT16", "BFLOAT16"), 16),
    **dict.fromkeys(("INT32", "UINT32", "FLOAT"), 32),
    **dict.fromkeys(("INT64", "UINT64", "DOUBLE", "COMPLEX64"), 64),
    "COMPLEX128": 128,
}
_RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
# Nodes whose first input's numbers come out, arranged or written differently.
_RESTATING = frozenset(
    {
        "Cast",
        "DequantizeLinear",
        "Flatten",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
# Nodes whose further inputs are numbers to compute with, not sizes or axes.
_UNPACKED = frozenset(
    {"Conv", "ConvTranspose", "DequantizeLinear", "Gemm", "MatMul", "QuantizeLinear"}
)


def read_model(path: str | Path) -> ModelProto:
    """Read an ONNX file.

    Raises:
        InputError: when the file is missing or is no ONNX file.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError("no such file", source=str(path))
    try:
        model = onnx.load(file)
    except (DecodeError, OSError, ValueError, checker.ValidationError) as error:
        raise InputError(f"is no ONNX file: {error}", source=str(path)) from None
    if not model.graph.node:
        raise InputError("is no ONNX file: it holds no graph", source=str(path))
    return model


def bit_width(elem_type: int) -> int:
    """Bits of one number of an ONNX element type."""
    return _BITS[TensorProto.DataType.Name(elem_type)]


class Graph:
    """A model's main graph for a batch of one; the model that is given is left as it is.

    Attributes:
        nodes: in order, functions of the model's own written out, without Constant nodes.
        producer: name of a tensor -> the node that makes it.
        consumers: name of a tensor -> the nodes that take it.
        batch: samples of one inference; above 1 only where the file fixes it.

    Raises:
        InputError: when an axis of the input other than the batch is open.
    """

    def __init__(self, model: ModelProto) -> None:
        if model.functions:
            model = inliner.inline_local_functions(model)
        self._model = model
        self._initializers = {t.name: t for t in model.graph.initializer}
        self._stored = {name: _stored_bytes(t) for name, t in self._initializers.items()}
        for sparse in model.graph.sparse_initializer:
            name = sparse.values.name
            self._initializers[name] = _dense(sparse)
            self._stored[name] = _stored_bytes(sparse.values) + _stored_bytes(sparse.indices)
        self.nodes: list[NodeProto] = []
        self.producer: dict[str, NodeProto] = {}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            self._read(node)
        self._constants = self._find_constants()
        self._values: dict[str, np.ndarray] = {}
        self._inputs = []
        for info in model.graph.input:
            if info.name not in self._initializers:
                self._inputs.append(ValueInfoProto())
                self._inputs[-1].CopyFrom(info)
        self.batch = _fix_batch(self._inputs)

    def _read(self, node: NodeProto) -> None:
        if node.op_type == "Constant" and node.domain in STANDARD:
            tensor = _constant(node)
            self._initializers[tensor.name] = tensor
            self._stored[tensor.name] = _stored_bytes(tensor)
            return
        self.nodes.append(node)
        self.producer.update((name, node) for name in node.output if name)
        for name in node.input:
            self.consumers.setdefault(name, []).append(node)

    def is_constant(self, name: str) -> bool:
        """Whether the tensor follows from stored numbers alone."""
        return name in self._constants

    def value(self, name: str) -> np.ndarray:
        """The numbers of a constant tensor, evaluated node by node and kept."""
        if name not in self._values:
            if name in self._initializers:
                self._values[name] = numpy_helper.to_array(self._initializers[name])
            for node in self._ancestors(name):
                self._evaluate(node)
        return self._values[name]

    def leaves(self, name: str) -> dict[str, int]:
        """The initializers that a constant tensor is made from: name -> bytes in the file."""
        names = {name, *(i for node in self._ancestors(name) for i in node.input)}
        return {i: self._stored[i] for i in sorted(names) if i in self._stored}

    def root(self, name: str) -> str:
        """The tensor that a constant restates: back through casts, reshapes, quantisation.

        Two constants with one root are the same numbers, used twice.
        """
        while (node := self.producer.get(name)) is not None and node.op_type in _RESTATING:
            name = node.input[0]
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape in one inference.

        Raises:
            InputError: when neither inference nor the runtime can tell.
        """
        return self._type(name)[1]

    def elem_type(self, name: str) -> int:
        """The tensor's ONNX element type; raises as `shape`."""
        return self._type(name)[0]

    def _type(self, name: str) -> tuple[int, tuple[int, ...]]:
        if name not in self._types:
            if self.is_constant(name):
                array = self.value(name)
                self._types[name] = helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            else:
                self._types.update(self._probed)
        if name not in self._types:
            raise InputError(Problem(name, "the tensor's shape cannot be told"))
        return self._types[name]

    def _find_constants(self) -> set[str]:
        known = set(self._initializers)
        for node in self.nodes:
            fixed = node.op_type not in _RANDOM and not inner_graphs(node)
            if fixed and any(node.input) and all(i in known for i in node.input if i):
                known.update(o for o in node.output if o)
        return known

    def _ancestors(self, name: str) -> list[NodeProto]:
        """The nodes that make a constant tensor, in order of evaluation."""
        order: list[NodeProto] = []
        seen: set[int] = set()
        stack: list[tuple[str, NodeProto | None]] = [(name, None)]
        while stack:
            current, ready = stack.pop()
            if ready is not None:
                order.append(ready)
                continue
            node = self.producer.get(current)
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            stack.append((current, node))
            stack += [(i, None) for i in node.input]
        return order

    def _evaluate(self, node: NodeProto) -> None:
        outputs = [o for o in node.output if o]
        if all(o in self._values for o in outputs):
            return
        feeds = {i: self.value(i) for i in node.input if i}
        infos = [helper.make_tensor_value_info(n, _onnx_type(v), v.shape) for n, v in feeds.items()]
        ends = [helper.make_empty_tensor_value_info(o) for o in outputs]
        model = ModelProto(ir_version=self._model.ir_version)
        model.opset_import.extend(self._model.opset_import)
        model.graph.CopyFrom(helper.make_graph([node], "constant", infos, ends))
        # a runtime's own operators have no reference implementation
        evaluate = _reference if node.domain in STANDARD else _run
        arrays = evaluate(model, feeds)
        self._values.update(zip(outputs, map(np.asarray, arrays), strict=True))

    @cached_property
    def _types(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Element types and shapes by ONNX's own inference, for this batch."""
        inferred = shape_inference.infer_shapes(self._bare_model(), data_prop=True).graph
        types = {n: (t.data_type, tuple(t.dims)) for n, t in self._initializers.items()}
        for info in [*inferred.input, *inferred.value_info, *inferred.output]:
            tensor = info.type.tensor_type
            dims = tensor.shape.dim
            if tensor.HasField("shape") and all(d.HasField("dim_value") for d in dims):
                types[info.name] = tensor.elem_type, tuple(d.dim_value for d in dims)
        return types

    @cached_property
    def _probed(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """What inference leaves open, seen by running the file once on zeros.

        ONNX's inference knows none of the runtime's own operators (QGemm, QLinearAdd...).
        """
        model = self._bare_model()
        made = [o for node in self.nodes for o in node.output if o]
        names = [o for o in made if o not in self._types and not self.is_constant(o)]
        del model.graph.output[:]
        model.graph.output.extend(helper.make_empty_tensor_value_info(o) for o in names)
        feeds = {}
        for info in self._inputs:
            kind = info.type.tensor_type
            dims = [d.dim_value for d in kind.shape.dim]
            feeds[info.name] = np.zeros(dims, helper.tensor_dtype_to_np_dtype(kind.elem_type))
        found = zip(names, _run(model, feeds), strict=True)
        return {n: (_onnx_type(a), a.shape) for n, a in found if isinstance(a, np.ndarray)}

    def _bare_model(self) -> ModelProto:
        """A copy for this batch, rid of declared shapes; sizes and axes that constants make are
        written out, since inference cannot see through nodes that unpack them."""
        model = ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        del graph.value_info[:]
        del graph.input[:]
        graph.input.extend(self._inputs)
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
        for node in graph.node:
            if any(o in self._constants for o in node.output) or node.op_type in _UNPACKED:
                continue
            for i, name in enumerate(node.input):
                if i and name in self._constants and name not in self._initializers:
                    node.input[i] = f"{name}/{len(graph.initializer)}"
                    graph.initializer.append(
                        numpy_helper.from_array(self.value(name), node.input[i])
                    )
        return model


def inner_graphs(node: NodeProto) -> list[GraphProto]:
    """The graphs inside a control-flow node (If, Loop, Scan)."""
    graphs = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    return graphs + [g for a in node.attribute for g in a.graphs]


def _reference(model: ModelProto, feeds: dict[str, np.ndarray]) -> Sequence[Any]:
    node = model.graph.node[0]
    if node.op_type in ("ConstantOfShape", "Expand"):  # the last input is a shape
        sizes = feeds[node.input[-1]]
        if np.prod(sizes, dtype=float) > NUMBERS:
            raise InputError(f"the graph cannot be followed: {node.op_type} makes {sizes} numbers")
    try:
        return list(ReferenceEvaluator(model).run(None, feeds))
    except Exception as error:  # a file may be anyone's, and ONNX's own code does not check
        text = f"{node.op_type} {node.name!r}: {type(error).__name__}: {error}"
        raise InputError(f"the graph cannot be followed: {' '.join(text.split())}") from error


def _run(model: ModelProto, feeds: dict[str, np.ndarray]) -> Sequence[Any]:
    try:
        return runtimes.evaluator(model, as_written=True)(feeds)
    except NetzipError as error:
        raise InputError(f"the graph cannot be followed: {error}") from None


def _fix_batch(inputs: list[ValueInfoProto]) -> int:
    """Set an open first axis to 1, in place; the batch."""
    batch = 1
    for info in inputs:
        dims = info.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if dim.dim_value > 0:
                continue
            if axis:
                what = f"axis {axis} ({dim.dim_param or 'unnamed'}) of the input has no fixed size"
                hint = "export the model with a fixed image size"
                raise InputError(Problem(info.name, what, "an open first axis only", hint))
            dim.dim_value = 1
    if inputs and (dims := inputs[0].type.tensor_type.shape.dim):
        batch = dims[0].dim_value
    return batch


def _onnx_type(array: np.ndarray) -> int:
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def _stored_bytes(tensor: TensorProto) -> int:
    """Bytes that a tensor's numbers take in the file, packed as ONNX packs them."""
    return -(-int(np.prod(tensor.dims, dtype=np.int64)) * bit_width(tensor.data_type) // 8)


def _dense(sparse: SparseTensorProto) -> TensorProto:
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    places = tuple(indices.T) if indices.ndim == 2 else np.unravel_index(indices, dense.shape)
    dense[places] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def _constant(node: NodeProto) -> TensorProto:
    """What a Constant node holds, as a stored tensor of its output's name."""
    (attribute,) = node.attribute
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        tensor = _dense(attribute.sparse_tensor)
    elif attribute.type == AttributeProto.TENSOR:
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
    else:
        value = helper.get_attribute_value(attribute)
        dtype = {"value_float": np.float32, "value_floats": np.float32}.get(attribute.name)
        tensor = numpy_helper.from_array(np.asarray(value, dtype))
    tensor.name = node.output[0]
    return tensor
