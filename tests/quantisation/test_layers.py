"""Layers found in a graph, codes of weights on a grid, and biases that make up for rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from netzip_mlflow.deployable import Exported, export
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.quantisation import layers, rounding
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.twin import Grid, Twin

SHAPE = (4, 5, 5)


def _source(
    nodes: list[onnx.NodeProto], constants: Mapping[str, np.ndarray], names: tuple[str, ...]
) -> Exported:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("n", *SHAPE))],
        [helper.make_empty_tensor_value_info("scores")],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    opset = [helper.make_opsetid("", 18)]
    return Exported(helper.make_model(graph, opset_imports=opset, ir_version=8), 0.0, names)


def _run(model: onnx.ModelProto, images: np.ndarray, output: str = "scores") -> np.ndarray:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.append(helper.make_empty_tensor_value_info(output))
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"images": images})[0], np.float64)


def _draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def _images(count: int = 40) -> np.ndarray:
    return np.random.default_rng(7).random((count, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def any_twin() -> Twin:
    """A twin without grids; nothing else of it is looked at."""
    return Twin.of(nn.Linear(1, 2), shape=(1, 1, 1))


NODES: dict[str, tuple[str, tuple[int, ...], int, dict[str, Any]]] = {
    "conv": ("Conv", (6, 4, 3, 3), 0, {}),
    "depthwise": ("Conv", (4, 1, 3, 3), 0, {"group": 4}),
    "grouped": ("Conv", (6, 2, 3, 3), 0, {"group": 2}),
    "transposed": ("ConvTranspose", (4, 6, 3, 3), 1, {}),
    "gemm": ("Gemm", (5, 100), 0, {"transB": 1}),
    "gemm-as-it-lies": ("Gemm", (100, 5), 1, {}),
    "matmul": ("MatMul", (100, 5), 1, {}),
}


def _one(op: str, weight: np.ndarray, settings: dict[str, Any], **more: np.ndarray) -> Exported:
    source = "images" if weight.ndim == 4 else "flat"
    flatten = [helper.make_node("Flatten", ["images"], ["flat"])] if source == "flat" else []
    node = helper.make_node(op, [source, "w", *more], ["scores"], **settings)
    return _source([*flatten, node], {"w": weight, **more}, ("layer",))


@pytest.mark.parametrize("name", NODES)
def test_a_layer_is_rows_of_channels_and_lies_as_before(name: str, any_twin: Twin) -> None:
    op, shape, axis, settings = NODES[name]
    weight = _draw(*shape)
    found = layers.find(_one(op, weight, settings), any_twin)
    assert list(found) == ["w"]
    layer = found["w"]
    assert (layer.name, layer.axis, layer.shape, layer.grid) == ("layer", axis, shape, None)
    for channel in range(shape[axis]):
        np.testing.assert_array_equal(layer.rows[channel], weight.take(channel, axis).ravel())
    np.testing.assert_array_equal(layer.laid(layer.rows), weight)


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("form", ["int8", "int4", "int2"])
def test_weights_are_what_each_channel_alone_would_get(
    name: str, form: str, any_twin: Twin
) -> None:
    op, shape, axis, settings = NODES[name]
    weight = _draw(*shape)
    source = _one(op, weight, settings)
    found = layers.find(source, any_twin)
    made = layers.weights(found, {"w": form}, reduced=False)["w"]
    assert (made.form, made.axis, made.codes.shape) == (form, axis, shape)
    for channel in range(shape[axis]):
        row = weight.take(channel, axis).reshape(1, -1).astype(np.float64)
        np.testing.assert_allclose(made.scale[channel], rounding.fit(row, form), rtol=2.0**-11)
        codes = rounding.codes(row, made.scale[channel : channel + 1], form)
        np.testing.assert_array_equal(made.codes.take(channel, axis).ravel(), codes[0])
    rounded = layers.with_rounded(source.model, found, {"w": made})
    (tensor,) = rounded.graph.initializer
    np.testing.assert_allclose(
        numpy_helper.to_array(tensor), made.codes * made.spread(made.scale), rtol=1e-6
    )
    close = found["w"].rounded(form)
    np.testing.assert_allclose(close, numpy_helper.to_array(tensor), atol=np.abs(weight).max() / 2)


def test_reduced_range_is_for_int8_alone(any_twin: Twin) -> None:
    found = layers.find(_one("Conv", _draw(6, 4, 3, 3), {}), any_twin)
    high = {
        (form, reduced): np.abs(
            layers.weights(found, {"w": form}, reduced=reduced)["w"].codes
        ).max()
        for form in ("int8", "int4")
        for reduced in (True, False)
    }
    assert (high["int8", True], high["int8", False]) == (64, 127)
    assert high["int4", True] == high["int4", False] <= 7


def test_products_of_activations_and_shared_weights(any_twin: Twin) -> None:
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1] * 4),
        helper.make_node("MatMul", ["a", "b"], ["scores"]),
    ]
    source = _source(nodes, {"w": _draw(4, 4, 3, 3)}, ("first", "again", "product"))
    found = layers.find(source, any_twin)
    assert {name: layer.name for name, layer in found.items()} == {"w": "first"}


# --- grids -----------------------------------------------------------------------------------


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


GAMMA = [1.0, -0.5, 2.0, -3.0, 0.1, 1e-3, -1e-4, 0.0]


def _on_grid(form: str, gamma: list[float]) -> tuple[Twin, dict[str, torch.Tensor]]:
    """A network whose weights lie on grids, and their codes."""
    draw = np.random.default_rng(3)
    allowed = {"int4": np.arange(-7, 8), "ternary": np.arange(-1, 2), "int2": [-3, -1, 1, 3]}[form]
    model = _Net().eval()
    codes, grids = {}, {}
    with torch.no_grad():
        for name, layer in (("conv", model.conv), ("linear", model.linear)):
            made = torch.tensor(draw.choice(allowed, layer.weight.shape), dtype=torch.float32)
            scale = torch.tensor(draw.uniform(0.01, 0.3, len(made)), dtype=torch.float32)
            layer.weight.copy_(made * scale.view(-1, *[1] * (made.ndim - 1)))
            codes[name], grids[name] = made, Grid(form, scale)
        model.norm.weight.copy_(torch.tensor(gamma))
        model.norm.bias.copy_(torch.linspace(-1, 1, 8))
        model.norm.running_mean.copy_(torch.linspace(-0.2, 0.2, 8))
        model.norm.running_var.copy_(torch.linspace(0.3, 2, 8))
    twin = Twin.of(model, shape=(3, 12, 12))
    return twin.replace(grids=grids), codes


@pytest.mark.parametrize("form", ["int4", "ternary", "int2"])
def test_codes_of_a_grid_survive_a_folded_normalisation(form: str) -> None:
    twin, codes = _on_grid(form, GAMMA)
    found = layers.find(export(twin), twin)
    by_name = {layer.name: (key, layer) for key, layer in found.items()}
    made = layers.weights(found, dict.fromkeys(found, form), reduced=True)
    variance = twin.model.norm.running_var + twin.model.norm.eps
    gamma = torch.tensor(GAMMA)
    turn = torch.where(gamma < 0, -1.0, 1.0)
    scales = {
        "conv": (twin.grids["conv"].scale * gamma.abs() / variance.sqrt()).numpy(),
        "linear": twin.grids["linear"].scale.numpy(),
    }
    expected = {"conv": codes["conv"] * turn.view(-1, 1, 1, 1), "linear": codes["linear"]}
    for name, (key, layer) in by_name.items():
        assert layer.grid is not None
        laid = np.moveaxis(made[key].codes, made[key].axis, 0)
        alive = scales[name] > 0
        np.testing.assert_array_equal(laid[alive], expected[name].numpy()[alive])
        np.testing.assert_allclose(made[key].scale[alive], scales[name][alive], rtol=2.0**-10)
        silent = laid[~alive] * made[key].scale[~alive].reshape(-1, *[1] * (laid.ndim - 1))
        assert np.abs(silent).max(initial=0) < 1e-5, "gamma of 0 silences a channel"


def test_a_channel_of_zero_codes_may_have_any_scale() -> None:
    twin, _ = _on_grid("ternary", GAMMA)
    with torch.no_grad():
        twin.model.conv.weight[0] = 0
    found = layers.find(export(twin), twin)
    made = layers.weights(found, dict.fromkeys(found, "ternary"), reduced=True)
    key = next(k for k, layer in found.items() if layer.name == "conv")
    assert not made[key].codes[0].any()
    assert made[key].scale[0] > 0


def test_a_grid_of_no_layer_is_an_error_that_names_it() -> None:
    twin, _ = _on_grid("int4", GAMMA)
    lost = twin.replace(grids={**twin.grids, "elsewhere": twin.grids["conv"]})
    with pytest.raises(NetzipError, match="layer elsewhere lies on a grid"):
        layers.find(export(twin), lost)


# --- bias correction --------------------------------------------------------------------------


def test_a_bias_is_corrected_by_hand() -> None:
    twin = Twin.of(nn.Linear(1, 2), shape=(1, 1, 1))
    weight = np.array([[0.3, -0.5], [1.0, 0.2]])
    rounded = np.array([[0.5, -0.5], [1.0, 0.0]])
    constants = {"w": weight, "b": np.array([0.1, -0.1])}
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Gemm", ["pooled", "w", "b"], ["scores"], transB=1),
    ]
    source = _source(nodes, constants, ("linear",))
    source.model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ("n", 2, 1, 1))
    )
    source.model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    found = layers.find(source, twin)
    changed = onnx.ModelProto()
    changed.CopyFrom(source.model)
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(rounded.astype("f4"), "w"))
    images = np.array([[2.0, 0.0], [4.0, 2.0]], np.float32).reshape(2, 2, 1, 1)  # means 3 and 1
    corrected = layers.with_corrected_biases(changed, source.model, found, images)
    values = {t.name: numpy_helper.to_array(t) for t in corrected.graph.initializer}
    (bias,) = (v for v in values.values() if v.shape == (2,) and v.dtype == np.float32)
    # 0.1 + (0.3 - 0.5) x 3 + 0, and -0.1 + 0 + (0.2 - 0) x 1
    np.testing.assert_allclose(bias, [0.1 - 0.6, -0.1 + 0.2], rtol=1e-6)
    assert "b" not in values, "what nobody reads is left out"


@pytest.mark.parametrize("name", ["conv", "grouped", "gemm", "gemm-as-it-lies"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_mean_of_every_channel_is_that_of_the_float_layer(
    name: str, with_bias: bool, any_twin: Twin
) -> None:
    op, shape, axis, settings = NODES[name]
    if op == "Conv":  # where each input meets each weight equally often, the correction is exact
        shape = (*shape[:2], 1, 1)
    more = {"b": _draw(shape[axis], seed=2)} if with_bias else {}
    source = _one(op, _draw(*shape), settings, **more)
    before = source.model.SerializeToString()
    found = layers.find(source, any_twin)
    made = layers.weights(found, {"w": "ternary"}, reduced=True)
    rounded = layers.with_rounded(source.model, found, made)
    corrected = layers.with_corrected_biases(rounded, source.model, found, _images())
    exact, plain, better = (_run(m, _images()) for m in (source.model, rounded, corrected))
    axes = (0, *range(2, exact.ndim))
    assert np.abs((plain - exact).mean(axes)).max() > 1e-3
    np.testing.assert_allclose(better.mean(axes), exact.mean(axes), atol=1e-5)
    assert source.model.SerializeToString() == before


def test_layers_that_share_weights_and_biases_are_corrected_apart(any_twin: Twin) -> None:
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["a"]),
        helper.make_node("Mul", ["a", "a"], ["square"]),
        helper.make_node("Conv", ["square", "w", "b"], ["scores"]),
    ]
    constants = {"w": _draw(4, 4, 1, 1), "b": _draw(4, seed=1)}
    source = _source(nodes, constants, ("first", "second"))
    found = layers.find(source, any_twin)
    made = layers.weights(found, {"w": "ternary"}, reduced=True)
    rounded = layers.with_rounded(source.model, found, made)
    corrected = layers.with_corrected_biases(rounded, source.model, found, _images())
    names = [tensor.name for tensor in corrected.graph.initializer]
    assert len(set(names)) == len(names)
    first, second = (n for n in corrected.graph.node if n.op_type == "Conv")
    assert first.input[2] != second.input[2]
    exact = _run(source.model, _images(), "a").mean((0, 2, 3))
    np.testing.assert_allclose(_run(corrected, _images(), "a").mean((0, 2, 3)), exact, atol=1e-5)


def test_means_are_of_all_images_whatever_the_batch(any_twin: Twin) -> None:
    source = _one("Conv", _draw(6, 4, 1, 1), {}, b=_draw(6))
    images = _images(layers.BATCH * 2 + 3)
    means = layers._mean_inputs(source.model, ["images"], images)
    np.testing.assert_allclose(means["images"], images.mean((0, 2, 3)), rtol=1e-6)


def test_the_trained_network_is_nearer_to_itself(
    twin: Twin, context: Context, task: Classification
) -> None:
    source = context.exports(twin)
    found = layers.find(source, twin)
    assert [layer.name for layer in found.values()] == ["conv1", "conv2", "linear"]
    made = layers.weights(found, dict.fromkeys(found, "ternary"), reduced=True)
    rounded = layers.with_rounded(source.model, found, made)
    calibration, _ = next(context.calibration.batches(64))
    corrected = layers.with_corrected_biases(rounded, source.model, found, calibration)
    others, _ = next(task.split("validation").batches(64))
    exact, plain, better = (_run(m, others) for m in (source.model, rounded, corrected))
    assert np.square(better - exact).mean() < 0.9 * np.square(plain - exact).mean()
    assert np.abs((better - exact).mean(0)).max() < np.abs((plain - exact).mean(0)).max()
