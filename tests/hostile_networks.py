"""ONNX files spoiled in one way each: what an exporter, a disk or a stranger may hand over."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = ["damaged"]


def damaged(content: bytes, how: str, rng: random.Random) -> bytes:
    """A file's content, spoiled."""
    if how in BYTES:
        return BYTES[how](content, rng)
    model = onnx.load_from_string(content)
    MODELS[how](model, rng)
    return model.SerializeToString()


def _flip(content: bytes, rng: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(rng.randint(1, 30)):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": lambda content, rng: content[: rng.randrange(len(content))],
    "flip": _flip,
    "noise": lambda _content, rng: rng.randbytes(rng.randint(1, 4000)),
    "empty": lambda _content, _rng: b"",
    "text": lambda _content, _rng: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}


def _shape(sizes: Callable[[random.Random], int]) -> Callable[[ModelProto, random.Random], None]:
    def change(model: ModelProto, rng: random.Random) -> None:
        values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
        for info in values[:1] if rng.random() < 0.5 else values:
            for dim in info.type.tensor_type.shape.dim[rng.randint(0, 1) :]:
                dim.dim_value = sizes(rng)

    return change


def _weights(model: ModelProto, rng: random.Random) -> TensorProto:
    return rng.choice(list(model.graph.initializer))


def _no_dims(model: ModelProto, _rng: random.Random) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def _foreign(model: ModelProto, rng: random.Random) -> None:
    node = rng.choice(list(model.graph.node))
    node.domain, node.op_type = rng.choice([("own", "Own"), ("com.microsoft", "Own"), ("", "Own")])


def _wrong_type(model: ModelProto, rng: random.Random) -> None:
    _weights(model, rng).data_type = rng.choice([0, 2, 7, 8, 9, 10, 16, 99, 1000])


def _external(model: ModelProto, rng: random.Random) -> None:
    tensor = _weights(model, rng)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    where = rng.choice(["../../../etc/passwd", "/etc/passwd", "nowhere.bin", "", "good.onnx"])
    tensor.external_data.add(key="location", value=where)
    tensor.external_data.add(key="length", value=rng.choice(["-1", "99999999999", "x", "10"]))


def _raw(model: ModelProto, rng: random.Random) -> None:
    tensor = _weights(model, rng)
    tensor.raw_data = tensor.raw_data[: rng.randint(0, 7)]


def _cycle(model: ModelProto, _rng: random.Random) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def _doubled(model: ModelProto, rng: random.Random) -> None:
    model.graph.node.append(rng.choice(list(model.graph.node)))


def _two_inputs(model: ModelProto, _rng: random.Random) -> None:
    model.graph.input.append(helper.make_tensor_value_info("second", 1, ["n", 3]))


def _names(model: ModelProto, rng: random.Random) -> None:
    odd = rng.choice(["", "\n", "é★", "a" * 5000, "=1+1", "a/b", "../x", "%s"])
    for node in model.graph.node:
        node.name = odd
    model.graph.name = odd


def _constant(model: ModelProto, rng: random.Random) -> None:
    sizes = rng.choice([[2**40], [2**62, 2**62], [-1], [2**29]])
    model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), "sizes"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["sizes"], ["ones"]))
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=0))
    last = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", "sum"], [last]))


def _strings(model: ModelProto, rng: random.Random) -> None:
    for info in [*model.graph.input, *model.graph.output][rng.randint(0, 1) :]:
        info.type.tensor_type.elem_type = rng.choice([8, 9, 7, 14, 0, 500])


def _attributes(model: ModelProto, rng: random.Random) -> None:
    node = next(n for n in model.graph.node if n.attribute)
    attribute = rng.choice(list(node.attribute))
    for position in range(len(attribute.ints)):
        attribute.ints[position] = rng.choice([0, -1, 2**40, 3])
    if not attribute.ints:
        attribute.i = rng.choice([0, -1, 2**62])


def _sparse(model: ModelProto, _rng: random.Random) -> None:
    values = numpy_helper.from_array(np.ones(2, np.float32), "thin")
    indices = numpy_helper.from_array(np.array([1, 10**9]), "where")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3, 3]))


def _functions(model: ModelProto, _rng: random.Random) -> None:
    """Two functions that call each other."""
    for name, other in (("A", "B"), ("B", "A")):
        node = helper.make_node(other, ["x"], ["y"], domain="own")
        opset = [helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", name, ["x"], ["y"], [node], opset))
    model.opset_import.append(helper.make_opsetid("own", 1))
    last = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("A", ["before"], [last], domain="own"))


def _deep(model: ModelProto, _rng: random.Random) -> None:
    """A graph in a graph in a graph."""
    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["o"])], "g", [], [])
    for _ in range(60):
        node = helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "g", [], [])
        if inner.ByteSize() > 10**6:
            break
    model.graph.node.insert(
        0, helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    )


def _cleared(field: str) -> Callable[[ModelProto, random.Random], None]:
    return lambda model, _rng: model.graph.ClearField(field)  # type: ignore[arg-type]


def _opset(model: ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.3:
        model.ClearField("opset_import")
    else:
        model.opset_import[0].version = rng.choice([0, -1, 1, 6, 999, 2**40])


def _ir(model: ModelProto, rng: random.Random) -> None:
    model.ir_version = rng.choice([0, -1, 1, 3, 99, 2**40])


MODELS: dict[str, Callable[[ModelProto, random.Random], None]] = {
    "dims": _shape(lambda rng: rng.choice([2**31, 2**40, 2**62, 10**6])),
    "negative dims": _shape(lambda rng: -rng.randint(1, 10)),
    "zero dims": _shape(lambda _rng: 0),
    "no dims": _no_dims,
    "foreign op": _foreign,
    "no initialisers": _cleared("initializer"),
    "wrong type": _wrong_type,
    "opset": _opset,
    "ir version": _ir,
    "external data": _external,
    "raw data": _raw,
    "cycle": _cycle,
    "doubled": _doubled,
    "no outputs": _cleared("output"),
    "no inputs": _cleared("input"),
    "two inputs": _two_inputs,
    "names": _names,
    "huge constant": _constant,
    "strings": _strings,
    "attributes": _attributes,
    "sparse": _sparse,
    "functions": _functions,
    "deep": _deep,
}
