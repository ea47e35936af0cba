"""Dynamic int8: 8-bit weights in the file, activations quantised at each call."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from netzip_mlflow.deployable import Deployable
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.dynamic_int8 import DynamicInt8
from netzip_mlflow.twin import Twin


def _operations(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_every_layer_computes_in_integers(twin: Twin, context: Context) -> None:
    made = DynamicInt8().apply(twin, context)
    found = _operations(made.model)
    assert found.count("ConvInteger") == 2
    assert found.count("MatMulInteger") == 1
    assert not {"Conv", "Gemm", "MatMul"} & set(found)
    assert found.count("DynamicQuantizeLinear") == 3
    assert {layer["weight_bits"] for layer in made.manifest["layers"]} == {8}


def test_weights_are_eight_bit_copies(twin: Twin, context: Context, baseline: Deployable) -> None:
    made = DynamicInt8(per_channel=False).apply(twin, context)
    full = {tuple(t.dims): numpy_helper.to_array(t) for t in baseline.model.graph.initializer}
    small = [t for t in made.model.graph.initializer if t.dims[2:] == [3, 3]]
    assert len(small) == 2
    for tensor in small:
        assert tensor.data_type == TensorProto.UINT8
        codes = numpy_helper.to_array(tensor).astype(np.float64).ravel()
        exact = full[tuple(tensor.dims)].astype(np.float64).ravel()
        slope, offset = np.polyfit(codes, exact, 1)  # codes are an affine copy of the weights
        step = (exact.max() - exact.min()) / 255
        assert slope == np.clip(slope, 0.98 * step, 1.02 * step)
        assert np.abs(slope * codes + offset - exact).max() <= 0.55 * step


def test_per_channel_has_a_zero_point_for_each_output_of_a_linear_layer(
    twin: Twin, context: Context
) -> None:
    def zero_points(per_channel: bool) -> set[tuple[int, ...]]:
        made = DynamicInt8(per_channel=per_channel).apply(twin, context)
        stored = [t for t in made.model.graph.initializer if t.data_type == TensorProto.UINT8]
        return {tuple(t.dims) for t in stored if len(t.dims) < 2}

    assert zero_points(per_channel=True) == {(), (4,)}
    assert zero_points(per_channel=False) == {()}
