"""fp16: half the bytes, the same answers, float32 at both ends."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

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
