"""ONNX's reference evaluator as a runtime, against torch and against hand-worked integers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.runtimes import find
from netzip_mlflow.runtimes.adapter import Adapter

node = helper.make_node
REFERENCE = find("reference")


def some(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32) / 3


def images(n):
    return np.random.default_rng(1).random((n, 3, 8, 8), np.float32)


def save(path, nodes, stored, *, shape=("batch", 3, 8, 8), kind=TensorProto.FLOAT, out=2):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * out)],
        [numpy_helper.from_array(a, n) for n, a in stored.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


WEIGHTS = {"w1": some(4, 3, 3, 3), "w2": some(4, 10)}
NODES = (
    node("Conv", ["x", "w1"], ["c"], name="conv", pads=[1, 1, 1, 1]),
    node("Relu", ["c"], ["r"]),
    node("GlobalAveragePool", ["r"], ["g"]),
    node("Flatten", ["g"], ["f"]),
    node("MatMul", ["f", "w2"], ["y"], name="linear"),
)


def by_torch(x):
    seen = torch.conv2d(torch.from_numpy(x), torch.from_numpy(WEIGHTS["w1"]), padding=1)
    return (seen.relu().mean((2, 3)) @ torch.from_numpy(WEIGHTS["w2"])).numpy()


@pytest.mark.parametrize("batch", ["batch", 2])
def test_answers_agree_with_torch(tmp_path, batch):
    session = REFERENCE.load(save(tmp_path / "n.onnx", NODES, WEIGHTS, shape=(batch, 3, 8, 8)))
    assert (session.shape, session.outputs) == ((3, 8, 8), ("y",))
    (scores,) = session.run(images(3))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, by_torch(images(3)), atol=1e-5)
    session.bind(images(2))()


def test_integers_are_computed_as_the_file_says(tmp_path):
    """A pixel of 0.5 at scale 0.01 is 50 steps above the zero point; times 3 at scale 0.02."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws"], ["dw"]),
        node("Conv", ["d", "dw"], ["y"]),
    ]
    stored = {
        "s": np.float32(0.01),
        "z": np.uint8(128),
        "w": np.full((1, 3, 1, 1), 3, np.int8),
        "ws": np.float32(0.02),
    }
    session = REFERENCE.load(save(tmp_path / "q.onnx", nodes, stored, out=4))
    x = np.full((1, 3, 8, 8), 0.5049, np.float32)
    (y,) = session.run(x)
    np.testing.assert_allclose(y, 3 * 0.5 * 0.06, rtol=1e-5)
    facts = REFERENCE.executed(tmp_path / "q.onnx")
    assert (facts.layers, facts.int8_layers, facts.conversions) == (1, 0, 3)


def test_another_tools_file_is_adapted(tmp_path):
    nodes = [
        node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
        node("ReduceMean", ["c", "axes"], ["y"], keepdims=0),
    ]
    shape, kind = ("n", 8, 8, 3), TensorProto.UINT8
    path = save(tmp_path / "p.onnx", nodes, {"axes": np.array([1, 2])}, shape=shape, kind=kind)
    session = REFERENCE.load(path, adapter=Adapter(layout="nhwc", scale=255))
    (y,) = session.run(np.full((2, 3, 8, 8), 0.2, np.float32))
    np.testing.assert_allclose(y, 51)


def test_description(tmp_path):
    described = REFERENCE.load(save(tmp_path / "n.onnx", NODES, WEIGHTS)).describe()
    assert (described["runtime"], described["version"]) == ("reference", onnx.__version__)


def test_what_it_cannot_load_or_run(tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        REFERENCE.load(tmp_path / "none.onnx")
    (tmp_path / "corrupt.onnx").write_bytes(b"text")
    unheard = save(tmp_path / "u.onnx", [node("Unheard", ["x"], ["y"], domain="own")], {}, out=4)
    for path in (tmp_path / "corrupt.onnx", unheard):
        with pytest.raises(InputError, match=rf"{path.name}.*cannot load it"):
            REFERENCE.load(path)
    broken = [node("Reshape", ["x", "shape"], ["y"])]
    session = REFERENCE.load(save(tmp_path / "b.onnx", broken, {"shape": np.array([5, 7])}))
    for method in (session.run, session.bind):
        with pytest.raises(NetzipError, match=r"b\.onnx: the reference failed") as caught:
            method(images(2))
        assert not isinstance(caught.value, InputError)
    with pytest.raises(InputError, match=r"allowed: \(n, 3, 8, 8\)"):
        session.run(images(2)[:, :1])
