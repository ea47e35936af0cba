"""The stripping and naming pass: the same computation in fewer bytes, and nothing else in them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from netzip_mlflow.deployable.compact import compact
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.twin import Twin

SHAPE = ["batch", 3, 12, 12]
Optimised = Callable[[onnx.ModelProto], list[str]]


@pytest.fixture(scope="module")
def float_graph(twin: Twin) -> onnx.ModelProto:
    """The tiny network as torch exports it, with all its bookkeeping."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            twin.network(),
            (torch.rand(2, 3, 12, 12),),
            dynamo=True,
            input_names=["images"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


class _Reader:
    def __init__(self, task: Classification) -> None:
        self._batches = task.split("calibration").batches(32)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch[0]}


@pytest.fixture(scope="module")
def int8_graph(
    float_graph: onnx.ModelProto, task: Classification, tmp_path_factory: pytest.TempPathFactory
) -> onnx.ModelProto:
    """The same by ONNX Runtime's own quantiser: QDQ, per channel, U8S8."""
    from onnxruntime.quantization import QuantFormat, QuantType, quant_pre_process, quantize_static

    folder = tmp_path_factory.mktemp("int8")
    paths = [str(folder / name) for name in ("in.onnx", "pre.onnx", "out.onnx")]
    onnx.save(float_graph, paths[0])
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            quant_pre_process(paths[0], paths[1], skip_symbolic_shape=True)
            quantize_static(
                paths[1],
                paths[2],
                _Reader(task),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
            )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(paths[2])


@pytest.fixture(params=["float_graph", "int8_graph"])
def graph(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return request.getfixturevalue(request.param)


def _run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def _size(model: onnx.ModelProto) -> int:
    return len(model.SerializeToString())


# --- real graphs ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_it_computes_the_same(graph: onnx.ModelProto, task: Classification, batch: int) -> None:
    images, _ = next(task.split("validation").batches(batch))
    np.testing.assert_array_equal(
        _run(compact(graph), {"images": images})[0], _run(graph, {"images": images})[0]
    )


def test_the_result_is_valid(graph: onnx.ModelProto) -> None:
    small = compact(graph)
    onnx.checker.check_model(small, full_check=True)
    onnx.checker.check_model(onnx.load_from_string(small.SerializeToString()), full_check=True)


def test_it_is_smaller_by_the_bookkeeping(graph: onnx.ModelProto) -> None:
    small = compact(graph)
    payload = sum(len(t.raw_data) for t in small.graph.initializer)
    assert _size(small) < 0.7 * _size(graph)
    nodes = len(small.graph.node) + len(small.graph.initializer)
    assert _size(small) - payload < 45 * nodes + 200, "a few bytes a node and a tensor"


def test_once_is_enough(graph: onnx.ModelProto) -> None:
    once = compact(graph)
    assert compact(once).SerializeToString() == once.SerializeToString()


def test_the_given_graph_stays(graph: onnx.ModelProto) -> None:
    before = graph.SerializeToString()
    compact(graph)
    assert graph.SerializeToString() == before


def test_it_is_deterministic(graph: onnx.ModelProto) -> None:
    assert compact(graph).SerializeToString() == compact(graph).SerializeToString()


def test_input_and_output_are_kept(graph: onnx.ModelProto) -> None:
    small = compact(graph)
    for before, after in (
        (graph.graph.input, small.graph.input),
        (graph.graph.output, small.graph.output),
    ):
        assert [(v.name, v.type) for v in after] == [(v.name, v.type) for v in before]
    (images,) = small.graph.input
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == SHAPE


def test_nothing_else_is_in_the_file(graph: onnx.ModelProto, twin: Twin) -> None:
    small = compact(graph)
    for tensor in small.graph.initializer:
        tensor.ClearField("raw_data")  # weights may spell anything
    content = small.SerializeToString()
    here = str(Path(__file__).parents[2]).encode()
    layers = [name.encode() for name, _ in twin.model.named_modules() if name]
    for word in (here, b"/", b".py", b"torch", b"pkg.", b"Stack", b"stack", b"onnx.quant", *layers):
        assert word not in content.replace(b"netzip-mlflow", b""), word
    texts = [small.doc_string, small.graph.doc_string, small.producer_version, small.domain]
    for node in small.graph.node:
        texts += [node.name, node.doc_string, *(a.doc_string for a in node.attribute)]
        assert not node.metadata_props
    for value in (*small.graph.input, *small.graph.output, *small.graph.initializer):
        texts.append(value.doc_string)
        assert not value.metadata_props
    assert not any(texts)
    assert not small.metadata_props
    assert not small.graph.metadata_props
    assert not small.graph.value_info
    assert not small.graph.quantization_annotation


def test_int8_is_still_executed_as_int8(int8_graph: onnx.ModelProto, optimised: Optimised) -> None:
    kinds = optimised(compact(int8_graph))
    assert kinds.count("QLinearConv") == 2
    assert kinds.count("QGemm") == 1
    assert sorted(kinds) == sorted(optimised(int8_graph)), "nothing runs otherwise than before"


def test_bias_scales_are_computed_only_where_that_is_exact(int8_graph: onnx.ModelProto) -> None:
    products = [n for n in compact(int8_graph).graph.node if n.op_type == "Mul"]
    assert products, "conv1 and conv2 have biases of 8 and 16"
    other = onnx.ModelProto()
    other.CopyFrom(int8_graph)
    biases = {
        node.input[1]
        for node in other.graph.node
        if node.op_type == "DequantizeLinear"
        and any(
            t.name == node.input[0] and t.data_type == TensorProto.INT32
            for t in other.graph.initializer
        )
    }
    for tensor in other.graph.initializer:
        if tensor.name in biases:
            scale = numpy_helper.to_array(tensor) * np.float32(1.01)
            tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
    assert not [n for n in compact(other).graph.node if n.op_type == "Mul"]
    images = np.random.default_rng(0).random((3, 3, 12, 12), dtype=np.float32)
    np.testing.assert_array_equal(
        _run(compact(other), {"images": images})[0], _run(other, {"images": images})[0]
    )
