from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from netzip_mlflow.errors import InputError
from netzip_mlflow.metrics.graph import read_model
from netzip_mlflow.metrics.operations import Layer, layers, totals

node = helper.make_node


def some(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def codes(*shape, kind=np.int8):
    return np.random.default_rng(0).integers(-7, 8, shape).astype(kind)


def one(value, kind=np.float32):
    return np.asarray(value, kind)


@pytest.mark.parametrize(
    ("form", "weight_bits", "activation_bits"),
    [
        ("float", 32, 32),
        ("half", 16, 16),
        ("qdq", 8, 8),
        ("qdq4", 4, 8),
        ("qoperator", 8, 8),
        ("dynamic", 8, 8),
    ],
)
def test_every_form_of_a_network_has_its_operations_and_its_own_bits(
    forms, known, form, weight_bits, activation_bits
):
    found = layers(read_model(forms[form]))
    assert [layer.macs for layer in found] == list(known.macs.values())
    assert [layer.ops for layer in found] == [2 * macs for macs in known.macs.values()]
    assert {layer.weight_bits for layer in found} == {weight_bits}
    assert {layer.activation_bits for layer in found} == {activation_bits}
    assert {layer.bits for layer in found} == {max(weight_bits, activation_bits)}
    assert [layer.weight_bytes for layer in found] == [
        n * weight_bits / 8 for n in known.weights.values()
    ]
    if form == "dynamic":  # biases are added by nodes behind the layers
        assert [layer.parameters for layer in found] == list(known.weights.values())
    else:
        biases = {**known.biases, "product": 0}  # added by a node behind it, in every form
        assert [layer.parameters for layer in found] == [
            n + biases[name] for name, n in known.weights.items()
        ]


def test_layers_are_named_and_shaped(forms):
    found = layers(read_model(forms["float"]))
    assert [(layer.name, layer.op, layer.output_shape) for layer in found] == [
        ("conv", "Conv", (1, 8, 8, 8)),
        ("depthwise", "Conv", (1, 8, 4, 4)),
        ("pointwise", "Conv", (1, 8, 4, 4)),
        ("product", "MatMul", (1, 16)),
        ("linear", "Gemm", (1, 10)),
    ]


def test_totals_weigh_operations_with_their_bits(known):
    def layer(macs, bits):
        return Layer("l", "Conv", (1,), macs, 2 * macs, bits, bits, bits, 0.0, 0)

    assert totals([layer(100, 8), layer(300, 32)]) == {
        "macs": 400,
        "ops": 800,
        "chats": 200 * 8 + 600 * 32,
        "mean_bits": pytest.approx(26.0),
        "layers": 2,
    }
    assert "mean_bits" not in totals([])


@given(st.lists(st.tuples(st.integers(1, 10**12), st.sampled_from([8, 16, 32])), min_size=2))
def test_chats_add_up_over_any_cut(pairs):
    found = [Layer("l", "Conv", (1,), m, 2 * m, b, b, b, 0.0, 0) for m, b in pairs]
    whole, left, right = totals(found), totals(found[:1]), totals(found[1:])
    for key in ("macs", "ops", "chats", "layers"):
        assert whole[key] == left[key] + right[key]
    assert 8 <= whole["mean_bits"] <= 32


def test_a_float_fallback_counts_32_beside_int8(forms):
    model = read_model(forms["qdq"])
    (gemm,) = (n for n in model.graph.node if n.op_type == "Gemm")
    source = next(n for n in model.graph.node if gemm.input[0] in n.output)
    quantise = next(n for n in model.graph.node if source.input[0] in n.output)
    gemm.input[0] = quantise.input[0]  # the activation before it was quantised
    last = layers(model)[-1]
    assert (last.weight_bits, last.activation_bits, last.bits) == (8, 32, 32)


def test_low_bit_weights_with_float_activations_count_32(build):
    stored = {"w": helper.make_tensor("w", TensorProto.INT4, [4, 3, 1, 1], [1] * 12), "s": one(0.1)}
    nodes = [node("DequantizeLinear", ["w", "s"], ["d"]), node("Conv", ["x", "d"], ["y"])]
    (layer,) = layers(build(nodes, stored, {"y": ["batch", 4, 8, 8]}))
    assert (layer.weight_bits, layer.activation_bits, layer.bits) == (4, 32, 32)
    assert layer.weight_bytes == 6


QUANTISED = (
    node("QuantizeLinear", ["x", "sx", "zx"], ["q"]),
    node("DequantizeLinear", ["q", "sx", "zx"], ["xq"]),
)
SCALES = {"sx": one(0.01), "zx": one(7, np.uint8), "sw": one([0.1, 0.2, 0.3, 0.4])}


def packed_forms():
    """One 4 x 3 x 2 x 2 kernel of int8 codes, stored in each way that graph nodes unpack."""
    stored = {
        "int8": ({"w": codes(4, 3, 2, 2)}, [], 48),
        "int4": (
            {"p": helper.make_tensor("p", TensorProto.INT4, [4, 3, 2, 2], [1, -2, 3] * 16)},
            [node("Cast", ["p"], ["w"], to=TensorProto.INT8)],
            24,
        ),
        "int2": (
            {"p": helper.make_tensor("p", TensorProto.INT2, [4, 3, 2, 2], [1, -2, 0] * 16)},
            [node("Cast", ["p"], ["w"], to=TensorProto.INT8)],
            12,
        ),
        "one bit": (
            {
                "p": np.arange(6, dtype=np.uint8)[:, None],
                "masks": np.array([[1, 2, 4, 8, 16, 32, 64, 128]], np.uint8),
                "plus": one(1, np.int8),
                "minus": one(-1, np.int8),
                "shape": np.array([4, 3, 2, 2]),
            },
            [
                node("BitwiseAnd", ["p", "masks"], ["bits"]),
                node("Cast", ["bits"], ["set"], to=TensorProto.BOOL),
                node("Where", ["set", "plus", "minus"], ["flat"]),
                node("Reshape", ["flat", "shape"], ["w"]),
            ],
            6 + 8 + 1 + 1,
        ),
        "code book": (
            {"book": codes(256, 2, 2), "index": np.arange(12, dtype=np.int32).reshape(4, 3)},
            [node("Gather", ["book", "index"], ["w"])],
            1024 + 48,
        ),
        "quantised at load": (
            {"float": some(4, 3, 2, 2)},
            [node("QuantizeLinear", ["float", "sw"], ["w"], axis=0, output_dtype=TensorProto.INT8)],
            192,
        ),
        "split blob": (
            {"blob": codes(60, kind=np.int8), "sizes": np.array([48, 12])},
            [
                node("Split", ["blob", "sizes"], ["first", "rest"]),
                node("Reshape", ["first", "shape"], ["w"]),
            ],
            60 + 16,  # the sizes of the pieces unpack it
        ),
    }
    stored["split blob"][0]["shape"] = np.array([4, 3, 2, 2])
    return stored


@pytest.mark.parametrize("form", packed_forms())
def test_packed_weights_are_what_they_unpack_to(build, form):
    stored, unpack, size = packed_forms()[form]
    nodes = [
        *QUANTISED,
        *unpack,
        node("DequantizeLinear", ["w", "sw"], ["wq"], axis=0),
        node("Conv", ["xq", "wq"], ["y"]),
    ]
    opset = 25 if form == "int2" else 21
    (layer,) = layers(build(nodes, stored | SCALES, {"y": ["batch", 4, 7, 7]}, opset=opset))
    assert layer.macs == 4 * 7 * 7 * 3 * 2 * 2
    assert (layer.weight_bits, layer.activation_bits, layer.bits) == (8, 8, 8)
    assert layer.parameters == 48
    assert layer.weight_bytes == size


def test_what_layers_share_is_divided_by_their_parameters(build):
    stored = {
        "book": codes(10, 1, 1),
        "i1": np.zeros((4, 3), np.uint8).astype(np.int32),
        "i2": np.zeros((8, 4), np.int32),
        "s": one(0.1),
    }
    nodes = [
        node("Gather", ["book", "i1"], ["g1"]),
        node("Gather", ["book", "i2"], ["g2"]),
        node("DequantizeLinear", ["g1", "s"], ["w1"]),
        node("DequantizeLinear", ["g2", "s"], ["w2"]),
        node("Conv", ["x", "w1"], ["c"]),
        node("Conv", ["c", "w2"], ["y"]),
    ]
    first, second = layers(build(nodes, stored, {"y": ["batch", 8, 8, 8]}))
    assert first.weight_bytes == pytest.approx(12 * 4 + 10 * 12 / 44)
    assert second.weight_bytes == pytest.approx(32 * 4 + 10 * 32 / 44)


def test_a_dequantised_weight_that_is_transposed_is_still_its_codes(build):
    stored = {"w": codes(10, 192), "sw": some(10), **SCALES}
    stored["sw"] = np.abs(stored["sw"])
    nodes = [
        *QUANTISED,
        node("Flatten", ["xq"], ["f"]),
        node("DequantizeLinear", ["w", "sw"], ["wq"], axis=0),
        node("Transpose", ["wq"], ["wt"]),
        node("MatMul", ["f", "wt"], ["y"]),
    ]
    (layer,) = layers(build(nodes, stored, {"y": ["batch", 10]}))
    assert layer.macs == 1920
    assert (layer.weight_bits, layer.activation_bits) == (8, 8)
    assert layer.weight_bytes == layer.parameters == 1920


def test_bits_of_joined_activations_are_those_of_the_wider_part(build):
    stored = {**SCALES, "z16": one(0, np.uint16), "w": some(4, 6, 1, 1)}
    wide = [
        node("QuantizeLinear", ["x", "sx", "z16"], ["q2"]),
        node("DequantizeLinear", ["q2", "sx", "z16"], ["x2"]),
    ]
    conv = node("Conv", ["c", "w"], ["y"])
    for parts, bits in ((["xq", "xq"], 8), (["xq", "x2"], 16), (["xq", "x"], 32)):
        nodes = [*QUANTISED, *wide, node("Concat", parts, ["c"], axis=1), conv]
        (layer,) = layers(build(nodes, stored, {"y": ["batch", 4, 8, 8]}))
        assert layer.activation_bits == bits


def test_pooled_and_cast_activations_keep_their_codes_and_computed_ones_do_not(build):
    stored = {**SCALES, "w": some(4, 3, 1, 1)}
    pool = node("MaxPool", ["xq"], ["p"], kernel_shape=[2, 2], strides=[2, 2])
    cast = node("Cast", ["xq"], ["p"], to=TensorProto.FLOAT)
    mean = node("AveragePool", ["xq"], ["p"], kernel_shape=[2, 2], strides=[2, 2])
    for between, bits in ((pool, 8), (cast, 8), (mean, 32)):
        nodes = [*QUANTISED, between, node("Conv", ["p", "w"], ["y"])]
        model = build(nodes, stored, {"y": ["batch", 4, None, None]})
        assert layers(model)[0].activation_bits == bits


def test_transposed_convolution_counts_input_times_kernel(build):
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=3)]
    (layer,) = layers(build(nodes, {"w": some(3, 5, 2, 2)}, {"y": ["batch", 15, 16, 16]}))
    assert layer.output_shape == (1, 15, 16, 16)
    assert layer.macs == (3 * 8 * 8) * (5 * 2 * 2)


def test_product_of_two_activations_counts_and_holds_no_parameters(build):
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        node("MatMul", ["x", "t"], ["a"]),
        node("MatMul", ["a", "x"], ["y"]),
    ]
    first, second = layers(build(nodes, {}, {"y": ["batch", 3, 8, 8]}))
    assert first.macs == second.macs == 3 * 8 * 8 * 8
    assert (first.parameters, first.weight_bytes, first.bits) == (0, 0.0, 32)


def test_a_weight_on_the_left_is_found(build):
    (layer,) = layers(
        build([node("MatMul", ["w", "x"], ["y"])], {"w": some(5, 8)}, {"y": ["batch", 3, 5, 8]})
    )
    assert layer.macs == 3 * 5 * 8 * 8
    assert layer.parameters == 40


@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gemm_in_every_orientation(build, trans_a, trans_b):
    weight = some(4, 6) if trans_b else some(6, 4)
    nodes = [node("Gemm", ["a", "w"], ["y"], transA=trans_a, transB=trans_b)]
    nodes.insert(0, node("Transpose" if trans_a else "Identity", ["x"], ["a"]))
    (layer,) = layers(build(nodes, {"w": weight}, {"y": [1, 4]}, inputs={"x": [1, 6]}))
    assert layer.macs == 24


def test_products_of_constants_are_weights_not_layers(build):
    nodes = [
        node("MatMul", ["u", "v"], ["w"]),
        node("Flatten", ["x"], ["f"]),
        node("MatMul", ["f", "w"], ["y"]),
    ]
    (layer,) = layers(build(nodes, {"u": some(192, 2), "v": some(2, 10)}, {"y": ["batch", 10]}))
    assert layer.macs == layer.parameters == 1920
    assert layer.weight_bytes == (192 * 2 + 2 * 10) * 4


def test_dynamic_quantisation_inside_the_product(build):
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("DynamicQuantizeMatMul", ["f", "w", "s"], ["y"], domain="com.microsoft"),
    ]
    stored = {"w": codes(192, 10), "s": one(0.1)}
    (layer,) = layers(build(nodes, stored, {"y": ["batch", 10]}, domains=["com.microsoft"]))
    assert (layer.macs, layer.bits) == (1920, 8)


def test_functions_of_the_model_are_looked_into(build):
    model = build([node("Own", ["x", "w"], ["y"], domain="own")], {"w": some(4, 3, 1, 1)}, {})
    model.graph.output.extend([helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.append(
        helper.make_function(
            "own",
            "Own",
            ["a", "b"],
            ["c"],
            [node("Conv", ["a", "b"], ["c"])],
            [helper.make_opsetid("", 21)],
        )
    )
    assert [layer.macs for layer in layers(model)] == [4 * 64 * 3]


def test_a_fixed_batch_is_divided_out(build):
    nodes = [node("Conv", ["x", "w"], ["y"])]
    model = build(nodes, {"w": some(4, 3, 1, 1)}, {"y": [8, 4, 8, 8]}, inputs={"x": [8, 3, 8, 8]})
    assert layers(model)[0].macs == 4 * 64 * 3


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (node("Einsum", ["f", "w"], ["z"], name="sum", equation="ij,jk->ik"), "sum: node kind Ein"),
        (node("Det", ["w"], ["z"]), None),  # of a constant: a value
        (node("Loop3D", ["f", "w"], ["z"], domain="own"), "z: node kind Loop3D takes a weight"),
        (node("Loop3D", ["f", "small"], ["z"], domain="own"), None),  # one number is no weight
        (node("RNN", ["f", "w", "w"], ["z"], hidden_size=10), "multiplies matrices"),
    ],
)
def test_an_unknown_node_kind_with_a_weight_is_an_error_that_names_it(build, bad, message):
    nodes = [
        node("Flatten", ["x"], ["f"]),
        bad,
        node("MatMul", ["f", "w"], ["y"]),
    ]
    stored = {"w": some(192, 10), "small": one([0.5])}
    model = build(nodes, stored, {"y": ["batch", 10]}, domains=["own"])
    if message is None:
        assert len(layers(model)) == 1
    else:
        with pytest.raises(InputError, match=message):
            layers(model)


def test_layers_inside_control_flow_are_an_error(build):
    inner = helper.make_graph(
        [node("MatMul", ["f", "w"], ["i"])],
        "then",
        [],
        [helper.make_tensor_value_info("i", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("If", ["yes"], ["y"], name="choice", then_branch=inner, else_branch=inner),
    ]
    model = build(nodes, {"w": some(192, 10), "yes": np.array(True)}, {"y": ["batch", 10]})
    with pytest.raises(InputError, match="choice: node kind If holds layers"):
        layers(model)


def test_a_graph_without_layers_is_an_error(build):
    with pytest.raises(InputError, match="no convolution and no matrix product"):
        layers(build([node("Relu", ["x"], ["y"])], {}, {"y": ["batch", 3, 8, 8]}))


def test_measuring_leaves_the_model_as_it_is_and_gives_the_same_twice(forms):
    for path in forms.values():
        model = read_model(path)
        before = hashlib.sha256(model.SerializeToString(deterministic=True)).digest()
        assert layers(model) == layers(model)
        assert hashlib.sha256(model.SerializeToString(deterministic=True)).digest() == before


@pytest.mark.slow
def test_resnet18_at_224_has_its_published_operations(exported):
    """MEASURING.md: 1,814,073,344; torch's own counter agrees (it counts 2 per MAC)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.models import resnet18

    network = resnet18().eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.rand(1, 3, 224, 224))
    found = totals(layers(onnx.load(exported(network, 224))))
    assert found["macs"] == 1_814_073_344
    assert found["ops"] == counter.get_total_flops()
    assert found["chats"] == found["ops"] * 32
