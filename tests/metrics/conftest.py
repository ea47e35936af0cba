"""One small network, and the forms that real tools give it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SIZE = (3, 8, 8)

# Worked out by hand, for one sample of 3 x 8 x 8: output numbers x products each.
MACS = {
    "conv": 8 * 8 * 8 * (3 * 3 * 3),
    "depthwise": 8 * 4 * 4 * (1 * 3 * 3),
    "pointwise": 8 * 4 * 4 * (8 * 1 * 1),
    "product": 1 * 16 * 16,
    "linear": 1 * 10 * 16,
}
WEIGHTS = {"conv": 216, "depthwise": 72, "pointwise": 64, "product": 256, "linear": 160}
BIASES = {"conv": 8, "depthwise": 8, "pointwise": 0, "product": 16, "linear": 10}
PARAMETERS = sum(WEIGHTS.values()) + sum(BIASES.values())


def small_network() -> onnx.ModelProto:
    """Normalisation, three convolutions, a residual, a product with its Add, a Gemm."""
    rng = np.random.default_rng(0)

    def numbers(name, *shape):
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / 3, name)

    stored = [
        numpy_helper.from_array(np.full((1, 3, 1, 1), 0.5, np.float32), "mean"),
        numbers("w1", 8, 3, 3, 3),
        numbers("b1", 8),
        numbers("w2", 8, 1, 3, 3),
        numbers("b2", 8),
        numbers("w3", 8, 8, 1, 1),
        numbers("w4", 16, 16),
        numbers("b4", 16),
        numbers("w5", 10, 16),
        numbers("b5", 10),
    ]
    node = helper.make_node
    nodes = [
        node("Sub", ["images", "mean"], ["n"]),
        node("Conv", ["n", "w1", "b1"], ["c1"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node(
            "Conv",
            ["r1", "w2", "b2"],
            ["c2"],
            name="depthwise",
            group=8,
            strides=[2, 2],
            pads=[1, 1, 1, 1],
        ),
        node("Relu", ["c2"], ["r2"]),
        node("Conv", ["r2", "w3"], ["c3"], name="pointwise"),
        node("Add", ["c3", "r2"], ["s"]),
        node("Concat", ["s", "r2"], ["cc"], axis=1),
        node("GlobalAveragePool", ["cc"], ["g"]),
        node("Flatten", ["g"], ["f"], axis=1),
        node("MatMul", ["f", "w4"], ["m"], name="product"),
        node("Add", ["m", "b4"], ["ma"]),
        node("Relu", ["ma"], ["mr"]),
        node("Gemm", ["mr", "w5", "b5"], ["scores"], name="linear", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


class Calibration:
    def __init__(self):
        rng = np.random.default_rng(1)
        self._batches = iter([{"images": rng.random((4, *SIZE), np.float32)} for _ in range(2)])

    def get_next(self):
        return next(self._batches, None)


@pytest.fixture(scope="session")
def forms(tmp_path_factory) -> dict[str, Path]:
    """The network as files: float, half, qdq, qdq4, qoperator, dynamic."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.transformers.float16 import convert_float_to_float16

    folder = tmp_path_factory.mktemp("forms")
    names = ("float", "half", "qdq", "qdq4", "qoperator", "dynamic")
    paths = {name: folder / f"{name}.onnx" for name in names}
    onnx.save(small_network(), paths["float"])
    onnx.save(convert_float_to_float16(small_network(), keep_io_types=True), paths["half"])
    static = {
        "qdq": (QuantFormat.QDQ, QuantType.QInt8),
        "qdq4": (QuantFormat.QDQ, QuantType.QInt4),
        "qoperator": (QuantFormat.QOperator, QuantType.QInt8),
    }
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for name, (form, kind) in static.items():
                quantize_static(
                    paths["float"],
                    paths[name],
                    Calibration(),
                    quant_format=form,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=kind,
                )
            quantize_dynamic(paths["float"], paths["dynamic"], weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
    return paths


@pytest.fixture(scope="session")
def known() -> SimpleNamespace:
    """The network's figures, worked out by hand."""
    return SimpleNamespace(
        macs=MACS, weights=WEIGHTS, biases=BIASES, parameters=PARAMETERS, shape=SIZE
    )


@pytest.fixture(scope="session")
def build():
    """Build a model from nodes and arrays: build(nodes, stored, output_shape, opset=21)."""

    def make(nodes, stored, outputs, *, inputs=None, opset=21, domains=()):
        graph = helper.make_graph(
            nodes,
            "g",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in (inputs or {"x": ["batch", *SIZE]}).items()
            ],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            [
                t if isinstance(t, onnx.TensorProto) else numpy_helper.from_array(t, n)
                for n, t in stored.items()
            ],
        )
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        ir_version = 13 if opset >= 25 else 10
        return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)

    return make


@pytest.fixture
def exported(tmp_path):
    """Export a torch network: exported(network, side) -> file; its parameters are redrawn.

    Fresh biases are zero and the exporter leaves those out; redrawn, every parameter is there.
    """
    torch = pytest.importorskip("torch")

    def export(network, side):
        path = tmp_path / "exported.onnx"
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0, 0.05)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            torch.onnx.export(
                network.eval(),
                (torch.rand(2, 3, side, side),),
                path,
                dynamo=True,
                verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
            )
        return path

    return export
