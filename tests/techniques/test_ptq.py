"""Static int8: what is stored, what is executed, and what each parameter does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from netzip_mlflow.deployable import Deployable, deploy
from netzip_mlflow.metrics.graph import Graph
from netzip_mlflow.runtimes import open_runtime
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.ptq import PTQ
from netzip_mlflow.twin import Architecture, InputSpec, Twin


@pytest.fixture(scope="module")
def made(twin: Twin, context: Context) -> Deployable:
    return PTQ().apply(twin, context)


def _codes(model: onnx.ModelProto) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each weight's codes, int64, with its scale, as the graph unpacks and pairs them."""
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear" and graph.is_constant(node.input[0]):
            codes, scale = map(graph.value, node.input[:2])
            assert codes.dtype == np.int8, "biases are float"
            assert not graph.value(node.input[2]).any(), "symmetric"
            yield codes.astype(np.int64), scale.astype(np.float64)


def _floats(model: onnx.ModelProto) -> dict[tuple[int, ...], np.ndarray]:
    """The weights of an FP32 graph by shape: no two layers of the tiny network share one."""
    found = {tuple(t.dims): numpy_helper.to_array(t) for t in model.graph.initializer}
    return {shape: w.astype(np.float64) for shape, w in found.items() if len(shape) > 1}


def test_every_layer_is_executed_in_int8(
    made: Deployable, optimised: Callable[[onnx.ModelProto], list[str]], tmp_path
) -> None:
    kinds = optimised(made.model)
    assert kinds.count("QLinearConv") == 2
    assert kinds.count("QGemm") == 1
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"} & set(kinds)
    executed = open_runtime("onnxruntime").executed(made.save(tmp_path))
    assert (executed["int8_layers"], executed["layers"]) == (3, 3)


@pytest.mark.parametrize(("reduce_range", "levels"), [(True, 128), (False, 254)])
def test_weights_are_symmetric_and_per_channel(
    reduce_range: bool, levels: int, twin: Twin, context: Context, baseline: Deployable
) -> None:
    exact = _floats(baseline.model)
    found = list(_codes(PTQ(reduce_range=reduce_range).apply(twin, context).model))
    assert len(found) == 3
    for codes, scale in found:
        weight = exact[codes.shape] if codes.shape in exact else exact[codes.shape[::-1]].T
        axis = weight.shape.index(scale.size)
        others = tuple(a for a in range(weight.ndim) if a != axis)
        expected = 2 * np.abs(weight).max(axis=others) / levels
        np.testing.assert_allclose(scale, expected, rtol=2.0**-11)
        wide = np.expand_dims(scale, others)
        assert np.abs(codes - weight / wide).max() < 0.5 + 1e-5, "rounded to the nearest"
        assert np.abs(codes).max() == levels // 2


def test_reduced_range_never_saturates_a_pair_of_products(made: Deployable) -> None:
    # without VNNI two products u8 x s8 are added in int16: 2 x 255 x 64 fits, 2 x 255 x 127 not
    largest = max(int(np.abs(codes).max()) for codes, _ in _codes(made.model))
    assert 2 * 255 * largest <= np.iinfo(np.int16).max


def test_activations_are_uint8_per_tensor(made: Deployable) -> None:
    stored = {t.name: t for t in made.model.graph.initializer}
    nodes = [n for n in made.model.graph.node if n.op_type == "QuantizeLinear"]
    assert nodes
    for node in nodes:
        assert not stored[node.input[1]].dims
        assert stored[node.input[2]].data_type == TensorProto.UINT8


def test_the_runtime_computes_what_the_graph_says(made: Deployable, task: Classification) -> None:
    images, _ = next(task.split("validation").batches(64))
    expected = np.asarray(ReferenceEvaluator(made.model).run(None, {"images": images})[0])
    session = onnxruntime.InferenceSession(
        made.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    scores = session.run(None, {"images": images})[0]
    step = np.unique(np.diff(np.unique(expected))).min()
    assert np.abs(scores - expected).max() <= 3 * step, "a few roundings apart"
    assert (scores.argmax(1) == expected.argmax(1)).mean() > 0.95


@pytest.mark.parametrize(
    "changed",
    [
        PTQ(calibration="entropy"),
        PTQ(calibration="percentile", percentile=90.0),
        PTQ(reduce_range=False),
    ],
)
def test_each_parameter_changes_the_file(
    changed: PTQ, made: Deployable, twin: Twin, context: Context
) -> None:
    assert changed.apply(twin, context).digest != made.digest


def test_the_percentile_cuts_ranges(made: Deployable, twin: Twin, context: Context) -> None:
    def ranges(model: onnx.ModelProto) -> np.ndarray:
        stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        nodes = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
        return np.array([float(stored[n.input[1]]) for n in nodes])

    cut, less = (
        ranges(PTQ(calibration="percentile", percentile=p).apply(twin, context).model)
        for p in (60.0, 95.0)
    )
    whole = ranges(made.model)
    assert cut.shape == less.shape == whole.shape
    assert (cut <= less + 1e-9).all()
    assert (less <= whole * 1.01).all()
    assert cut.sum() < less.sum() < whole.sum()


def test_ranges_come_from_the_calibration_split(
    made: Deployable, twin: Twin, context: Context
) -> None:
    assert made.manifest["calibration_digest"] == context.calibration.digest
    dark = context.calibration.take(np.arange(8))
    other = PTQ().apply(twin, replace(context, calibration=dark))
    assert other.manifest["calibration_digest"] == dark.digest != context.calibration.digest
    assert other.digest != made.digest


def test_the_manifest_names_layers_and_widths(made: Deployable) -> None:
    layers = {layer["name"]: layer for layer in made.manifest["layers"]}
    assert list(layers) == ["conv1", "conv2", "linear"]
    for layer in layers.values():
        assert (layer["weight_bits"], layer["activation_bits"]) == (8, 8)


@pytest.mark.slow
def test_a_resnet20_is_all_int8_and_a_quarter_of_the_size(
    optimised: Callable[[onnx.ModelProto], list[str]],
) -> None:
    draw = np.random.default_rng(0)
    task = Classification.of(
        {
            "x_train": draw.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8),
            "y_train": np.arange(100) % 10,
            "x_test": draw.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8),
            "y_test": np.arange(20) % 10,
        },
        calibration=40,
    )
    architecture = Architecture("name", "resnet20_cifar", {})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture.build(10, task.shape)
    spec = InputSpec(task.shape, (0.48, 0.48, 0.45), (0.25, 0.24, 0.26))
    twin = Twin(model, spec, task.classes, architecture)
    context = Context.of(task, twin, device="cpu", threads=1)
    made, full = PTQ().apply(twin, context), deploy(twin, context)
    assert sum(layer["parameters"] for layer in full.manifest["layers"]) >= 250_000
    ratio = len(full.model.SerializeToString()) / len(made.model.SerializeToString())
    assert ratio >= 3.7
    kinds = optimised(made.model)
    assert kinds.count("QLinearConv") == 19
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"} & set(kinds)
