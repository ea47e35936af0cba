"""Other weights in a quantised graph: how they are executed, whatever the form of storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from netzip_mlflow.deployable import compact
from netzip_mlflow.deployable.encodings import FORMS
from netzip_mlflow.deployable.integer import Row, Weights, least_runtime, with_weights
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.quantisation.calibration import quantise

SHAPE = (4, 6, 6)  # of the images
FLAT = int(np.prod(SHAPE))
NARROW = [form for form in FORMS if form != "int8"]


@dataclass(frozen=True)
class Kind:
    """A layer to try: node, shape of its weight, where its channels are, how it is executed."""

    op: str
    shape: tuple[int, ...]
    axis: int
    executed: str
    bias: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "conv": Kind("Conv", (6, 4, 3, 3), 0, "QLinearConv", 6, {"pads": [1] * 4}),
    "conv-without-bias": Kind("Conv", (6, 4, 3, 3), 0, "QLinearConv"),
    "conv-1x1": Kind("Conv", (5, 4, 1, 1), 0, "QLinearConv", 5),
    "grouped": Kind("Conv", (6, 2, 3, 3), 0, "QLinearConv", 6, {"group": 2}),
    "depthwise": Kind("Conv", (4, 1, 3, 3), 0, "QLinearConv", 4, {"group": 4}),
    "gemm": Kind("Gemm", (5, FLAT), 0, "QGemm", 5, {"transB": 1}),
    "gemm-as-it-lies": Kind("Gemm", (FLAT, 5), 1, "QGemm", 5),
    "gemm-without-bias": Kind("Gemm", (5, FLAT), 0, "QGemm", 0, {"transB": 1}),
    "matmul": Kind("MatMul", (FLAT, 5), 1, "QLinearMatMul"),
    # the runtime's CPU kernels have no integer form of this one
    "transposed": Kind("ConvTranspose", (4, 6, 3, 3), 1, "ConvTranspose", 6),
    "transposed-grouped": Kind("ConvTranspose", (4, 3, 3, 3), 1, "ConvTranspose", 6, {"group": 2}),
}
every_kind = pytest.mark.parametrize("name", KINDS)


class _Images:
    """Stands for a split, of the images that the tests run: nothing lies outside its ranges."""

    def batches(self, count: int) -> Iterator[tuple[np.ndarray, None]]:
        yield _images(), None


def _images() -> np.ndarray:
    return np.random.default_rng(9).random((8, *SHAPE), np.float32)


def _model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("batch", *SHAPE))],
        [helper.make_empty_tensor_value_info("scores")],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _layer(kind: Kind, weight: np.ndarray, bias: np.ndarray | None = None) -> onnx.ModelProto:
    """images -> the layer -> scores, flattened before a product of matrices."""
    draw = np.random.default_rng(1)
    constants = {"w": weight}
    if kind.bias:
        constants["b"] = draw.normal(0, 0.5, kind.bias) if bias is None else bias
    source = "images" if len(kind.shape) == 4 else "flat"
    flatten = [helper.make_node("Flatten", ["images"], ["flat"])] if source == "flat" else []
    node = helper.make_node(kind.op, [source, *constants], ["scores"], **kind.settings)
    return _model([*flatten, node], constants)


def _quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    return quantise(model, _Images(), "minmax", 100.0, reduce_range=False)  # type: ignore[arg-type]


def _weights(kind: Kind, form: str, seed: int = 0) -> Weights:
    draw = np.random.default_rng(seed)
    # int8 codes above 64 saturate on processors without VNNI
    high, step = (64, 1) if form == "int8" else (FORMS[form].high, FORMS[form].step)
    channels = kind.shape[kind.axis]
    codes = draw.choice(np.arange(-high, high + 1, step), kind.shape).astype(np.int8)
    if form == "kernels":
        codes = np.sign(codes) * 3
    scale = draw.uniform(0.5, 2.0, channels) / high / 4
    return Weights(form, codes, Row(float(scale.max())).rounded(scale), kind.axis)


def _float(made: Weights) -> np.ndarray:
    return made.codes * made.spread(made.scale)


def _run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"images": images})[0])


def _close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the rounding of uint8 activations, in and out."""
    np.testing.assert_allclose(found, expected, atol=0.02 * np.ptp(expected))


@every_kind
@pytest.mark.parametrize("form", FORMS)
def test_every_packed_form_is_executed_as_its_unpacked_twin(
    name: str, form: str, optimised: Callable[[onnx.ModelProto], list[str]]
) -> None:
    kind = KINDS[name]
    made = _weights(kind, form)
    source = _layer(kind, _float(made))
    quantised = _quantised(source)
    packed = compact(with_weights(quantised, {"w": made}))
    plain = compact(with_weights(quantised, {"w": replace(made, form="int8")}))
    onnx.checker.check_model(packed, full_check=True)
    kinds = Counter(optimised(packed))
    assert kinds[kind.executed] == 1
    assert kinds == Counter(optimised(plain))
    images = _images()
    scores = _run(packed, images)
    np.testing.assert_array_equal(scores, _run(plain, images))
    _close(scores, _run(source, images))


@every_kind
def test_codes_take_the_place_of_the_quantisers(name: str) -> None:
    """The quantised graph is of other weights altogether: nothing of them may remain."""
    kind = KINDS[name]
    made = _weights(kind, "int4")
    other = _layer(kind, np.random.default_rng(5).normal(0, 0.2, kind.shape))
    model = _quantised(_layer(kind, _float(made)))
    stale = {t.name: t for t in _quantised(other).graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.name.startswith("w_"):
            tensor.CopyFrom(stale[tensor.name])
    expected = _run(with_weights(_quantised(_layer(kind, _float(made))), {"w": made}), _images())
    np.testing.assert_array_equal(_run(with_weights(model, {"w": made}), _images()), expected)


def test_layers_that_share_a_weight_have_biases_of_their_own(
    optimised: Callable[[onnx.ModelProto], list[str]],
) -> None:
    kind = Kind("Conv", (4, 4, 3, 3), 0, "QLinearConv", 4)
    made = _weights(kind, "int4")
    nodes = [
        helper.make_node("Conv", ["images", "w", "one"], ["middle"], pads=[1] * 4),
        helper.make_node("Relu", ["middle"], ["positive"]),
        helper.make_node("Conv", ["positive", "w", "two"], ["scores"], pads=[1] * 4),
    ]
    biases = {"one": np.array([0.9, -0.4, 0.3, 0.0]), "two": np.array([-3.0, 2.0, 0.1, 5.0])}
    source = _model(nodes, {"w": _float(made), **biases})
    packed = compact(with_weights(_quantised(source), {"w": made}))
    assert Counter(optimised(packed))["QLinearConv"] == 2
    _close(_run(packed, _images()), _run(source, _images()))


def test_a_layer_that_is_not_given_stays_as_the_quantiser_made_it(
    optimised: Callable[[onnx.ModelProto], list[str]],
) -> None:
    kind = KINDS["conv"]
    made = _weights(kind, "int4")
    model = _quantised(_layer(kind, _float(made)))
    again = compact(with_weights(model, {}))
    np.testing.assert_array_equal(_run(again, _images()), _run(model, _images()))
    assert Counter(optimised(again))["QLinearConv"] == 1


def test_a_layer_left_in_float_is_an_error_in_few_bits_alone() -> None:
    kind = KINDS["conv"]
    made = _weights(kind, "int4")
    model = _quantised(_layer(kind, _float(made)))
    with pytest.raises(NetzipError, match="left the weight elsewhere in float"):
        with_weights(model, {"w": made, "elsewhere": made})
    plain = replace(made, form="int8")
    alone = with_weights(model, {"w": made})
    np.testing.assert_array_equal(
        _run(with_weights(model, {"w": made, "elsewhere": plain}), _images()),
        _run(alone, _images()),
    )


def test_the_given_graph_is_left_as_it_was() -> None:
    kind = KINDS["conv"]
    made = _weights(kind, "int2")
    model = _quantised(_layer(kind, _float(made)))
    before = model.SerializeToString()
    with_weights(model, {"w": made})
    assert model.SerializeToString() == before


@pytest.mark.parametrize("form", FORMS)
def test_the_versions_are_those_that_the_form_needs(form: str) -> None:
    kind = KINDS["conv"]
    made = _weights(kind, form)
    model = compact(with_weights(_quantised(_layer(kind, _float(made))), {"w": made}))
    (entry,) = (o for o in model.opset_import if o.domain == "")
    assert (entry.version, model.ir_version) == ((21, 10) if form == "int4" else (20, 9))


def test_the_least_runtime_is_that_of_the_most_demanding_form() -> None:
    assert least_runtime(["int8", "ternary", "kernels"]) == "1.21"
    assert least_runtime(["int8", "int4"]) == "1.23"


# --- scales and biases -----------------------------------------------------------------------


@given(
    st.lists(st.floats(2.0**-24, 1.0).flatmap(lambda v: st.sampled_from([v, -v])), min_size=1),
    st.floats(1e-20, 1e20),
)
def test_a_row_keeps_eleven_bits_of_large_and_small_alike(
    shares: list[float], largest: float
) -> None:
    values = np.array([*shares, 1.0]) * largest
    again = Row(largest).rounded(values)
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, values, rtol=2.0**-11)


def test_a_row_of_zeros_and_zeros_in_a_row() -> None:
    assert Row(0.0).rounded(np.zeros(3)).tolist() == [0, 0, 0]
    assert Row(2.0).rounded(np.array([0.0, 2.0])).tolist() == [0, 2]


def test_a_row_is_stable() -> None:
    values = np.random.default_rng(0).lognormal(-5, 4, 1000)
    row = Row(values.max())
    once = row.rounded(values)
    np.testing.assert_array_equal(row.rounded(once), once)
    np.testing.assert_array_equal(Row(float(once.max())).rounded(once), once)


def test_a_row_is_handed_out_by_the_runtime_as_it_was_rounded(
    optimised: Callable[[onnx.ModelProto], list[str]],
) -> None:
    draw = np.random.default_rng(0)
    parts = {"a": draw.normal(0, 3, 5), "b": draw.normal(0, 1e-6, 1), "c": np.zeros(2)}
    names = list(parts)
    nodes = [helper.make_node("Identity", [n], [f"{n}/out"]) for n in names]
    outputs = [helper.make_empty_tensor_value_info(f"{n}/out") for n in names]
    graph = helper.make_graph(nodes, "g", [], outputs)
    row = Row(max(float(np.abs(v).max()) for v in parts.values()))
    row.write(graph, "numbers", parts)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for values, found in zip(parts.values(), session.run(None, {}), strict=True):
        np.testing.assert_array_equal(found, row.rounded(values))
    stored = {t.name: t for t in model.graph.initializer}["numbers"]
    assert len(stored.raw_data) == 2 * 8
    assert set(optimised(model)) <= {"Identity"}


@pytest.mark.parametrize("name", ["conv", "gemm", "gemm-as-it-lies", "transposed-grouped"])
@pytest.mark.parametrize("form", FORMS)
def test_a_bias_far_above_its_weights_does_not_overflow(
    name: str, form: str, optimised: Callable[[onnx.ModelProto], list[str]]
) -> None:
    """bias / (input scale x weight scale) is an int32: with a scale of 1e-12 it would be 1e14."""
    kind = KINDS[name]
    made = _weights(kind, form)
    scale = made.scale.copy()
    scale[1] *= 1e-10
    made = replace(made, scale=scale)
    bias = np.linspace(-1.5, 3.0, kind.bias)
    bias[1] = -4.0
    source = _layer(kind, _float(made), bias)
    model = compact(with_weights(_quantised(source), {"w": made}))
    assert kind.executed in optimised(model)
    scores = _run(model, _images())
    _close(scores, _run(source, _images()))
    assert np.abs(scores[:, 1] + 4.0).max() < 0.1
