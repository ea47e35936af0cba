from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from netzip_mlflow.errors import InputError
from netzip_mlflow.metrics.graph import Graph, bit_width, read_model

node = helper.make_node


def some(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        (TensorProto.FLOAT, 32),
        (TensorProto.FLOAT16, 16),
        (TensorProto.BFLOAT16, 16),
        (TensorProto.UINT8, 8),
        (TensorProto.INT4, 4),
        (TensorProto.UINT2, 2),
        (TensorProto.DOUBLE, 64),
    ],
)
def test_bit_widths(kind, bits):
    assert bit_width(kind) == bits


def test_every_element_type_of_onnx_has_a_width():
    unsized = {"UNDEFINED", "STRING"}
    for name, kind in TensorProto.DataType.items():
        if name not in unsized:
            assert bit_width(kind) > 0, name


def test_constants_are_evaluated_as_the_runtime_folds_them(build):
    """An unpacking as deploy passes write it, against ONNX Runtime's own result."""
    stored = {
        "packed": helper.make_tensor("packed", TensorProto.INT4, [6], [1, -2, 3, 4, -5, 6]),
        "blob": some(6),
        "sizes": np.array([2, 4]),
        "scale": np.float32(0.5).reshape(()),
        "table": np.arange(-6, 6, dtype=np.int8),
        "index": np.array([3, 1, 2], np.int32),
    }
    nodes = [
        node("Cast", ["packed"], ["codes"], to=TensorProto.INT8),
        node("DequantizeLinear", ["codes", "scale"], ["a"]),
        node("Split", ["blob", "sizes"], ["p1", "p2"]),
        node("Mul", ["p2", "scale"], ["b"]),
        node("Gather", ["table", "index"], ["c"]),
        node("Constant", [], ["k"], value_floats=[1.0, 2.0]),
        node("Add", ["p1", "k"], ["d"]),
        node("Identity", ["x"], ["y"]),
    ]
    model = build(nodes, stored, {"y": ["batch", 3, 8, 8]})
    graph = Graph(model)
    names = ["codes", "a", "b", "c", "d"]
    model.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names)
    session = ort.InferenceSession(model.SerializeToString())
    expected = session.run(names, {"x": np.zeros((1, 3, 8, 8), np.float32)})
    for name, array in zip(names, expected, strict=True):
        assert graph.is_constant(name)
        np.testing.assert_array_equal(graph.value(name), array)
        assert graph.value(name).dtype == array.dtype
    assert not graph.is_constant("y")
    assert graph.leaves("b") == {"blob": 24, "scale": 4, "sizes": 16}
    assert graph.leaves("codes") == {"packed": 3}
    assert graph.leaves("packed") == {"packed": 3}


def test_the_runtimes_own_operators_are_evaluated_by_it(build):
    stored = {"w": np.array([1, -2, 3], np.int8), "s": np.float32(0.5).reshape(())}
    nodes = [
        node("DequantizeLinear", ["w", "s"], ["d"], domain="com.microsoft"),
        node("Identity", ["x"], ["y"]),
    ]
    graph = Graph(build(nodes, stored, {"y": ["b", 3, 8, 8]}, domains=["com.microsoft"]))
    np.testing.assert_array_equal(graph.value("d"), np.float32([0.5, -1, 1.5]))


def test_random_numbers_are_no_constants(build):
    nodes = [
        node("RandomNormalLike", ["w"], ["r"]),
        node("Add", ["x", "r"], ["y"]),
    ]
    graph = Graph(build(nodes, {"w": some(8)}, {"y": ["batch", 3, 8, 8]}))
    assert not graph.is_constant("r")


def test_roots_lead_back_to_the_stored_numbers(build):
    nodes = [
        node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
        node("Transpose", ["c"], ["t"]),
        node("Mul", ["t", "t"], ["m"]),
        node("Identity", ["x"], ["y"]),
    ]
    graph = Graph(build(nodes, {"w": np.ones((2, 3), np.int8)}, {"y": ["batch", 3, 8, 8]}))
    assert graph.root("t") == "w"
    assert graph.root("m") == "m"


def test_shapes_by_inference_and_by_running_agree(build):
    """QLinearAdd is unknown to ONNX: what follows it is seen by running the file."""
    stored = {
        "s": np.float32(0.1).reshape(()),
        "z": np.uint8(3).reshape(()),
        "w": np.ones((4, 3, 3, 3), np.int8),
        "zw": np.int8(0).reshape(()),
    }
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QLinearAdd", ["q", "s", "z", "q", "s", "z", "s", "z"], ["a"], domain="com.microsoft"),
        node("QLinearConv", ["a", "s", "z", "w", "s", "zw", "s", "z"], ["c"], strides=[2, 2]),
        node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    graph = Graph(build(nodes, stored, {"y": ["batch", 4, 3, 3]}, domains=["com.microsoft"]))
    assert graph.shape("q") == graph.shape("a") == (1, 3, 8, 8)
    assert graph.shape("c") == (1, 4, 3, 3)
    assert graph.elem_type("a") == graph.elem_type("c") == TensorProto.UINT8
    assert graph.elem_type("w") == TensorProto.INT8


def test_sizes_that_constant_nodes_make_are_followed(build):
    stored = {"blob": np.array([0, 192, 5], np.int64), "cut": np.array([2, 1])}
    nodes = [
        node("Split", ["blob", "cut"], ["shape", "rest"]),
        node("Reshape", ["x", "shape"], ["f"]),
        node("Relu", ["f"], ["y"]),
    ]
    graph = Graph(build(nodes, stored, {"y": ["batch", None]}))
    assert graph.shape("y") == (1, 192)


def test_an_open_axis_other_than_the_batch_is_an_error(build):
    inputs = {"x": ["batch", 3, "height", 8]}
    with pytest.raises(InputError, match=r"x: axis 2 \(height\) of the input has no fixed size"):
        Graph(build([node("Relu", ["x"], ["y"])], {}, {"y": None}, inputs=inputs))


def test_a_graph_that_cannot_be_followed_is_an_error(build):
    nodes = [node("Unheard", ["x"], ["a"], domain="own"), node("Relu", ["a"], ["y"])]
    graph = Graph(build(nodes, {}, {"y": None}, domains=["own"]))
    with pytest.raises(InputError, match="cannot be followed: ONNX Runtime says"):
        graph.shape("y")


def test_a_file_is_read_or_refused(forms, tmp_path):
    assert read_model(forms["float"]) == onnx.load(forms["float"])
    with pytest.raises(InputError, match=r"missing\.onnx: no such file"):
        read_model(tmp_path / "missing.onnx")
    with pytest.raises(InputError, match="no such file"):
        read_model(tmp_path)
    onnx.save(
        onnx.load(forms["float"]),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"m\.onnx: is no ONNX file.*weights\.bin"):
        read_model(tmp_path / "m.onnx")
