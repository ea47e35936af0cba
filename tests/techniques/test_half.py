"""Half the bytes, the same answers, float32 at both ends."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from netzip_mlflow.deployable import Deployable
from netzip_mlflow.metrics import operations
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.half import Half
from netzip_mlflow.twin import Twin


def _scores(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": images})[0]


def test_weights_are_the_rounded_ones(twin: Twin, context: Context, baseline: Deployable) -> None:
    made = Half().apply(twin, context)
    full, halved = (
        {t.dims[0]: t for t in d.model.graph.initializer if t.dims[2:] == [3, 3]}
        for d in (baseline, made)
    )
    assert full.keys() == halved.keys() == {8, 16}
    for channels, tensor in full.items():
        assert halved[channels].data_type == TensorProto.FLOAT16
        np.testing.assert_array_equal(
            numpy_helper.to_array(halved[channels]),
            numpy_helper.to_array(tensor).astype(np.float16),
        )


def test_input_and_output_stay_float32(twin: Twin, context: Context) -> None:
    graph = Half().apply(twin, context).model.graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


def test_scores_agree_to_half_precision(
    twin: Twin, context: Context, baseline: Deployable, task: Classification
) -> None:
    images, _ = next(task.split("validation").batches(64))
    made = Half().apply(twin, context)
    expected = _scores(baseline.model, images)
    np.testing.assert_allclose(
        _scores(made.model, images), expected, atol=4e-3 * np.abs(expected).max()
    )


def test_layers_count_sixteen_bits(twin: Twin, context: Context, baseline: Deployable) -> None:
    made = Half().apply(twin, context)
    assert {layer["weight_bits"] for layer in made.manifest["layers"]} == {16}
    half, full = (operations.totals(operations.layers(d.model)) for d in (made, baseline))
    assert half["chats"] * 2 == full["chats"]
    assert half["macs"] == full["macs"]


def test_the_shared_export_is_not_converted_in_place(twin: Twin, context: Context) -> None:
    before = context.exports(twin).model.SerializeToString()
    Half().apply(twin, context)
    assert context.exports(twin).model.SerializeToString() == before


# --- bfloat16: stored so, computed in float32 -----------------------------------------------------


def _stored(model: onnx.ModelProto) -> dict[tuple[int, ...], onnx.TensorProto]:
    return {tuple(t.dims): t for t in model.graph.initializer}


def test_bf16_rounds_as_torch_does(twin: Twin, context: Context, baseline: Deployable) -> None:
    made = Half("bf16").apply(twin, context)
    full, halved = _stored(baseline.model), _stored(made.model)
    large = {shape for shape, tensor in full.items() if np.prod(shape) > 16}
    assert {(8, 3, 3, 3), (16, 8, 3, 3), (4, 16)} <= large
    for shape in large:
        assert halved[shape].data_type == TensorProto.BFLOAT16
        expected = torch.tensor(numpy_helper.to_array(full[shape])).to(torch.bfloat16).float()
        found = numpy_helper.to_array(halved[shape]).astype(np.float32)
        np.testing.assert_array_equal(found, expected.numpy())
    for shape in full.keys() - large:
        assert halved[shape].raw_data == full[shape].raw_data


def test_bf16_ties_and_ends_of_the_range(context: Context) -> None:
    """Ties go to the even neighbour; what fp16 cannot hold (65504, 6e-8) keeps its magnitude."""
    values = torch.tensor([1.00390625, 1.01171875, 3.3e38, 1e-39, -0.0, 6.1e-5, 1e5, -1e-8] * 4)
    layer = nn.Sequential(nn.Flatten(), nn.Linear(32, 2, bias=False))
    with torch.no_grad():
        layer[1].weight.copy_(torch.stack([values, -values]))
    twin = Twin.of(layer, shape=(2, 4, 4))
    made = Half("bf16").apply(twin, context)
    (tensor,) = (t for t in made.model.graph.initializer if t.data_type == TensorProto.BFLOAT16)
    expected = layer[1].weight.detach().to(torch.bfloat16)
    found = np.frombuffer(tensor.raw_data, "<i2").reshape(tuple(tensor.dims))
    found = found if found.shape == (2, 32) else found.T
    np.testing.assert_array_equal(found, expected.view(torch.int16).numpy())
    assert expected[0, :2].tolist() == [1.0, 1.015625], "to even, downwards and upwards"


def test_bf16_computes_what_the_rounded_network_does(
    twin: Twin, context: Context, task: Classification
) -> None:
    images, _ = next(task.split("validation").batches(64))
    made = Half("bf16").apply(twin, context)
    widened = onnx.ModelProto()
    widened.CopyFrom(context.exports(twin).model)
    for tensor in widened.graph.initializer:
        if np.prod(tensor.dims) > 16 and tensor.data_type == TensorProto.FLOAT:
            rounded = torch.tensor(numpy_helper.to_array(tensor)).to(torch.bfloat16).float()
            tensor.CopyFrom(numpy_helper.from_array(rounded.numpy(), tensor.name))
    np.testing.assert_allclose(_scores(made.model, images), _scores(widened, images), atol=1e-6)


def test_bf16_is_computed_in_float32_and_says_so(
    twin: Twin, context: Context, baseline: Deployable, optimised
) -> None:
    made = Half("bf16").apply(twin, context)
    assert made.manifest["chain"][-1] == "half(bf16)"
    full, halved = (operations.layers(d.model) for d in (baseline, made))
    assert operations.totals(halved) == operations.totals(full)
    assert {layer.bits for layer in halved} == {32}
    assert [2 * layer.weight_bytes for layer in halved] == [layer.weight_bytes for layer in full]
    assert optimised(made.model) == optimised(baseline.model), "the casts are folded at load"


def test_bf16_nearly_halves_the_file(twin: Twin, context: Context, baseline: Deployable) -> None:
    made = Half("bf16").apply(twin, context)
    saved = sum(
        2 * int(np.prod(t.dims))
        for t in baseline.model.graph.initializer
        if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > 16
    )
    casts = len(made.model.graph.node) - len(baseline.model.graph.node)
    less = len(baseline.model.SerializeToString()) - len(made.model.SerializeToString())
    assert saved - 33 * casts <= less < saved


def test_the_runtime_has_no_bf16_arithmetic() -> None:
    """Why bf16 is a form of storage; when this fails, it can be arithmetic."""
    for kind in ("Relu", "MatMul"):
        casts = [
            helper.make_node("Cast", ["images"], ["b"], to=TensorProto.BFLOAT16),
            helper.make_node(kind, ["b"] * (2 if kind == "MatMul" else 1), ["c"]),
            helper.make_node("Cast", ["c"], ["scores"], to=TensorProto.FLOAT),
        ]
        ends = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4])
            for n in ("images", "scores")
        ]
        graph = helper.make_graph(casts, "g", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        with pytest.raises(Exception, match=f"NOT_IMPLEMENTED.*{kind}"):
            _scores(model, np.zeros((4, 4), np.float32))
