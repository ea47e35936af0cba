"""The stripping and naming pass, rule by rule, on graphs made by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from netzip_mlflow.deployable.compact import DEFAULTS, compact


def _run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


# --- hand-made graphs -----------------------------------------------------------------------


def _model(
    nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray], *, outputs: dict[str, list], **more
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "a graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, more.pop("shape", [2, 4]))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    opsets = [helper.make_opsetid("", 20), *more.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_equal_constants_are_one() -> None:
    ones = np.ones(4, np.float32)
    model = _model(
        [
            helper.make_node("Add", ["x", "first"], ["h"], name="a long name"),
            helper.make_node("Mul", ["h", "second"], ["y"]),
        ],
        {"first": ones, "second": ones.copy(), "unused": ones * 3},
        outputs={"y": [2, 4]},
    )
    small = compact(model)
    assert len(small.graph.initializer) == 1
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(_run(small, {"x": x})[0], x + 1)


def test_equal_bytes_of_another_type_or_shape_are_not_one() -> None:
    stored = {
        "a": np.zeros(4, np.float32),
        "b": np.zeros((1, 4), np.float32),
        "axes": np.zeros(2, np.int64),
    }
    model = _model(
        [
            helper.make_node("Add", ["x", "a"], ["h"]),
            helper.make_node("Add", ["h", "b"], ["i"]),
            helper.make_node("Gather", ["i", "axes"], ["y"]),
        ],
        stored,
        outputs={"y": [2, 4]},
    )
    assert len(compact(model).graph.initializer) == 3


def test_a_constant_that_is_an_output_stays() -> None:
    ones = np.ones(4, np.float32)
    model = _model(
        [helper.make_node("Add", ["x", "a"], ["y"])],
        {"a": ones, "kept": ones.copy()},
        outputs={"y": [2, 4], "kept": [4]},
    )
    small = compact(model)
    onnx.checker.check_model(small, full_check=True)
    x = np.zeros((2, 4), np.float32)
    first, second = _run(small, {"x": x})
    np.testing.assert_array_equal(first, x + 1)
    np.testing.assert_array_equal(second, ones)


def test_constant_nodes_become_initialisers() -> None:
    two = numpy_helper.from_array(np.full(4, 2, np.float32), "ignored")
    model = _model(
        [
            helper.make_node("Constant", [], ["c"], value=two),
            helper.make_node("Mul", ["x", "c"], ["y"]),
        ],
        {},
        outputs={"y": [2, 4]},
    )
    small = compact(model)
    assert [n.op_type for n in small.graph.node] == ["Mul"]
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(_run(small, {"x": x})[0], 2 * x)


def test_typed_data_becomes_raw() -> None:
    tensor = helper.make_tensor("c", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    assert not tensor.raw_data
    model = _model([helper.make_node("Add", ["x", "c"], ["y"])], {}, outputs={"y": [2, 4]})
    model.graph.initializer.append(tensor)
    small = compact(model)
    assert small.graph.initializer[0].raw_data == np.array([1, 2, 3, 4], "<f4").tobytes()


def test_other_kinds_of_constant_are_left_alone() -> None:
    model = _model(
        [
            helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0, 4.0]),
            helper.make_node("Add", ["x", "c"], ["y"]),
        ],
        {},
        outputs={"y": [2, 4]},
    )
    x = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(_run(compact(model), {"x": x})[0], _run(model, {"x": x})[0])


def test_sparse_constants_keep_working() -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [2], [5.0, 7.0])
    indices = helper.make_tensor("s_indices", TensorProto.INT64, [2], [1, 3])
    model = _model([helper.make_node("Add", ["x", "s"], ["y"])], {}, outputs={"y": [2, 4]})
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    x = np.zeros((2, 4), np.float32)
    expected = np.tile(np.array([0, 5, 0, 7], np.float32), (2, 1))
    np.testing.assert_array_equal(_run(model, {"x": x})[0], expected)
    np.testing.assert_array_equal(_run(compact(model), {"x": x})[0], expected)


def test_subgraphs_keep_working() -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(op, ["outer", "same"], [name], name="inner node", doc_string="doc")],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4])],
        )

    model = _model(
        [
            helper.make_node(
                "If", ["yes"], ["h"], then_branch=branch("t", "Add"), else_branch=branch("e", "Sub")
            ),
            helper.make_node("Relu", ["x"], ["outer"]),  # behind its reader: to be sorted
            helper.make_node("Add", ["h", "first"], ["y"]),
        ],
        {
            "yes": np.array([True]),
            "first": np.ones(4, np.float32),
            "same": np.ones(4, np.float32),
        },
        outputs={"y": [2, 4]},
    )
    small = compact(model)
    onnx.checker.check_model(small, full_check=True)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(_run(small, {"x": x})[0], x + 2)
    assert b"inner node" not in small.SerializeToString()
    assert b"doc" not in small.SerializeToString()
    assert compact(small).SerializeToString() == small.SerializeToString()


def test_opsets_that_no_node_needs_go() -> None:
    opsets = [helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("ai.onnx.ml", 3)]
    plain = _model(
        [helper.make_node("Relu", ["x"], ["y"])], {}, outputs={"y": [2, 4]}, opsets=opsets
    )
    assert [o.domain for o in compact(plain).opset_import] == [""]
    gelu = _model(
        [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")],
        {},
        outputs={"y": [2, 4]},
        opsets=opsets,
    )
    assert {o.domain for o in compact(gelu).opset_import} == {"", "com.microsoft"}


def test_initialisers_among_the_inputs_are_no_inputs() -> None:
    model = _model(
        [helper.make_node("Add", ["x", "c"], ["y"])],
        {"c": np.ones(4, np.float32)},
        outputs={"y": [2, 4]},
    )
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [4]))
    assert [i.name for i in compact(model).graph.input] == ["x"]


def test_many_values_get_distinct_short_names() -> None:
    names = [f"a/very/long/name/{i}" for i in range(200)]
    nodes = [
        helper.make_node("Relu", [before], [after])
        for before, after in zip(["x", *names], [*names, "y"], strict=True)
    ]
    small = compact(_model(nodes, {}, outputs={"y": [2, 4]}))
    found = [o for n in small.graph.node for o in n.output]
    assert len(set(found)) == len(found) == 201
    assert max(map(len, found)) <= 2
    assert "x" not in found
    assert found[-1] == "y"
    onnx.checker.check_model(small, full_check=True)


def test_what_is_named_most_gets_the_shortest_name() -> None:
    names = [f"v{i}" for i in range(60)]  # more than there are letters
    nodes = [
        helper.make_node("Add", [before, "often"], [after])
        for before, after in zip(["x", *names], [*names, "y"], strict=True)
    ]
    small = compact(_model(nodes, {"often": np.ones(4, np.float32)}, outputs={"y": [2, 4]}))
    assert len(small.graph.initializer[0].name) == 1
    x = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(_run(small, {"x": x})[0], x + 61)


def test_optional_operands_stay_absent() -> None:
    model = _model(
        [helper.make_node("Clip", ["x", "", "high"], ["y"])],
        {"high": np.array(3, np.float32)},
        outputs={"y": [2, 4]},
    )
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(_run(compact(model), {"x": x})[0], x.clip(max=3))


@given(st.permutations(range(6)))
def test_producers_stand_before_consumers(order: list[int]) -> None:
    chain = [helper.make_node("Relu", [f"v{i}" if i else "x"], [f"v{i + 1}"]) for i in range(5)]
    chain.append(helper.make_node("Add", ["v5", "v1"], ["y"]))
    small = compact(_model([chain[i] for i in order], {}, outputs={"y": [2, 4]}))
    onnx.checker.check_model(small, full_check=True)
    assert [n.op_type for n in small.graph.node] == ["Relu"] * 5 + ["Add"]


def test_a_sorted_graph_keeps_its_order() -> None:
    nodes = [helper.make_node(op, ["x"], [op]) for op in ("Tanh", "Abs", "Relu", "Exp")]
    nodes.append(helper.make_node("Sum", ["Abs", "Exp", "Relu", "Tanh"], ["y"]))
    small = compact(_model(nodes, {}, outputs={"y": [2, 4]}))
    assert [n.op_type for n in small.graph.node] == ["Tanh", "Abs", "Relu", "Exp", "Sum"]


@pytest.mark.parametrize(
    ("shape", "size", "left"), [([4, 2], [4, 2], []), ([0, 2], [0, 2], ["allowzero"])]
)
def test_allowed_zeros_go_where_the_shape_has_none(
    shape: list[int], size: list[int], left: list[str]
) -> None:
    model = _model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], allowzero=1)],
        {"shape": np.array(shape)},
        outputs={"y": size},
        shape=[0, 4] if left else [2, 4],
    )
    small = compact(model)
    assert [a.name for a in small.graph.node[0].attribute] == left
    x = np.zeros([0, 4] if left else [2, 4], np.float32)
    assert _run(small, {"x": x})[0].shape == tuple(size)


# --- codes that move as they are ----------------------------------------------------------------


def _pair(source: str, name: str, scale: str) -> list[onnx.NodeProto]:
    """Quantise and dequantise: `name` holds numbers again, `name.codes` their codes."""
    return [
        helper.make_node("QuantizeLinear", [source, scale, f"{scale}.zero"], [f"{name}.codes"]),
        helper.make_node("DequantizeLinear", [f"{name}.codes", scale, f"{scale}.zero"], [name]),
    ]


def _shuffle(scales: list[str], *extra: onnx.NodeProto, **outputs: list[int]) -> onnx.ModelProto:
    """ShuffleNet's channel shuffle, then its split, as a quantiser leaves it: a pair an edge."""
    first, moved, turned, flat, half = scales
    return _model(
        [
            *_pair("x", "q", first),
            helper.make_node("Reshape", ["q", "groups"], ["moved"]),
            *_pair("moved", "m", moved),
            helper.make_node("Transpose", ["m"], ["turned"], perm=[0, 2, 1, 3, 4]),
            *_pair("turned", "t", turned),
            helper.make_node("Reshape", ["t", "channels"], ["flat"]),
            *_pair("flat", "f", flat),
            helper.make_node("Split", ["f", "halves"], ["low", "high"], axis=1),
            *_pair("low", "l", half),
            *_pair("high", "h", half),
            helper.make_node("Sub", ["l", "h"], ["y"]),
            *extra,
        ],
        {
            "groups": np.array([1, 2, 4, 3, 3]),
            "channels": np.array([1, 8, 3, 3]),
            "halves": np.array([4, 4]),
            **{name: np.array(0.03, np.float32) for name in ("a", "same as a")},
            **{f"{name}.zero": np.array(120, np.uint8) for name in ("a", "same as a", "b")},
            "b": np.array(0.04, np.float32),
            "rows": np.linspace(0.02, 0.04, 8, dtype=np.float32),
            "rows.zero": np.full(8, 120, np.uint8),
        },
        outputs={"y": [1, 4, 3, 3], **outputs},
        shape=[1, 8, 3, 3],
    )


def _ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


ALIKE = ["a", "a", "same as a", "a", "a"]


@pytest.mark.parametrize(
    ("scales", "pairs"),
    [
        (ALIKE, 0),  # but the first, and a Dequantize per half
        (["b", *ALIKE[1:]], 1),  # codes of another scale are other codes
        (["a", "a", "b", "b", "b"], 1),
        (["rows", *ALIKE[1:]], 1),
    ],
)
def test_what_moves_numbers_moves_codes(scales: list[str], pairs: int) -> None:
    model = _shuffle(scales)
    small = compact(model)
    onnx.checker.check_model(small, full_check=True)
    assert _ops(small).count("QuantizeLinear") == 1 + pairs
    assert _ops(small).count("DequantizeLinear") == 2 + pairs
    x = np.random.default_rng(0).normal(size=(1, 8, 3, 3)).astype(np.float32)
    assert len(np.unique(_run(model, {"x": x})[0])) > 20
    np.testing.assert_array_equal(_run(small, {"x": x})[0], _run(model, {"x": x})[0])


def test_scales_of_an_axis_do_not_move() -> None:
    """Rows that a transposition turns: the codes would be read by other scales."""
    scale, zero = np.array([0.5, 0.01], np.float32), np.zeros(2, np.int8)
    pairs = [
        helper.make_node(f"{op}Linear", [source, "s", "z"], [target], axis=0)
        for op, source, target in (
            ("Quantize", "x", "q"),
            ("Dequantize", "q", "d"),
            ("Quantize", "t", "r"),
            ("Dequantize", "r", "y"),
        )
    ]
    turn = helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0])
    nodes = [*pairs[:2], turn, *pairs[2:]]
    model = _model(nodes, {"s": scale, "z": zero}, outputs={"y": [2, 2]}, shape=[2, 2])
    x = np.array([[0.5, 1.0], [0.3, 0.7]], np.float32)
    small = compact(model)
    assert _ops(small) == _ops(model)
    np.testing.assert_array_equal(_run(small, {"x": x})[0], _run(model, {"x": x})[0])


@pytest.mark.parametrize("read", ["moved", "turned", "high"])
@pytest.mark.parametrize("output", [False, True])
def test_numbers_that_somebody_else_reads_stay(read: str, output: bool) -> None:
    shape = {"moved": [1, 2, 4, 3, 3], "turned": [1, 4, 2, 3, 3], "high": [1, 4, 3, 3]}[read]
    if output:
        model = _shuffle(ALIKE, **{read: shape})
    else:
        model = _shuffle(ALIKE, helper.make_node("Neg", [read], ["n"]), n=shape)
    small = compact(model)
    x = np.random.default_rng(0).normal(size=(1, 8, 3, 3)).astype(np.float32)
    kept = 3 if read == "high" else 2  # a split keeps those of both its halves
    assert _ops(small).count("QuantizeLinear") == kept
    for found, wanted in zip(_run(small, {"x": x}), _run(model, {"x": x}), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_numbers_that_a_branch_reads_stay() -> None:
    def branch(op: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(op, TensorProto.FLOAT, [1, 4, 3, 3])
        return helper.make_graph([helper.make_node(op, ["low"], [op])], op, [], [output])

    choose = helper.make_node(
        "If", ["yes"], ["n"], then_branch=branch("Neg"), else_branch=branch("Abs")
    )
    model = _shuffle(ALIKE, choose, n=[1, 4, 3, 3])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    small = compact(model)
    x = np.random.default_rng(0).normal(size=(1, 8, 3, 3)).astype(np.float32)
    assert _ops(small).count("QuantizeLinear") == 3
    for found, wanted in zip(_run(small, {"x": x}), _run(model, {"x": x}), strict=True):
        np.testing.assert_array_equal(found, wanted)


# --- default attributes: the operators' own schemas are the reference ------------------------


def _schema(op: str, name: str) -> onnx.defs.OpSchema | None:
    """The latest version of an operator that has the attribute, if any has."""
    versions = range(onnx.defs.onnx_opset_version(), 8, -1)
    schemas = (onnx.defs.get_schema(op, version) for version in versions)
    return next((s for s in schemas if name in s.attributes), None)


RULES = [(op, name) for op, rules in DEFAULTS.items() for name in rules if _schema(op, name)]
# attributes without a default in the schema, whose documentation states it in words
IN_WORDS = {
    "dilations": [1, 1],
    "strides": [1, 1],
    "pads": [0, 0, 0, 0],
    "kernel_shape": None,
}


@pytest.mark.parametrize(("op", "name"), RULES)
def test_a_rule_matches_the_schemas_default_and_nothing_else(op: str, name: str) -> None:
    schema = _schema(op, name)
    assert schema is not None
    rule = DEFAULTS[op][name]
    if name in IN_WORDS:
        default = IN_WORDS[name]
        if default is None:
            assert "inferred from input W" in schema.attributes[name].description
            return
        assert rule(helper.make_attribute(name, default))
        assert not rule(helper.make_attribute(name, [*default[:-1], 2]))
        return
    default = schema.attributes[name].default_value
    assert default.name == name, "the schema states a default"
    assert rule(default)
    value = helper.get_attribute_value(default)
    other = value + 1 if isinstance(value, int | float) else b"SAME_UPPER"
    assert not rule(helper.make_attribute(name, other))


def test_attributes_that_are_no_defaults_stay() -> None:
    draw = np.random.default_rng(0)
    model = _model(
        [
            helper.make_node(
                "Conv",
                ["x", "w"],
                ["h"],
                strides=[2, 1],
                pads=[1, 0, 1, 0],
                dilations=[1, 2],
                group=2,
                kernel_shape=[3, 3],
            ),
            helper.make_node("AveragePool", ["h"], ["i"], kernel_shape=[2, 2], ceil_mode=1),
            helper.make_node("Flatten", ["i"], ["y"], axis=2),
        ],
        {"w": draw.random((4, 1, 3, 3), dtype=np.float32)},
        outputs={"y": [None, None]},
        shape=[1, 2, 9, 9],
    )
    x = draw.random((1, 2, 9, 9), dtype=np.float32)
    np.testing.assert_array_equal(_run(compact(model), {"x": x})[0], _run(model, {"x": x})[0])


def test_another_domains_operator_keeps_its_attributes() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], domain="some.vendor", alpha=1.0)
    model = _model(
        [node],
        {"w": np.ones((4, 4), np.float32)},
        outputs={"y": [2, 4]},
        opsets=[helper.make_opsetid("some.vendor", 1)],
    )
    assert [a.name for a in compact(model).graph.node[0].attribute] == ["alpha"]


def test_another_domains_reshape_keeps_its_attributes() -> None:
    model = _model(
        [helper.make_node("Reshape", ["x"], ["y"], domain="some.vendor", shape=[4, 2])],
        {},
        outputs={"y": [4, 2]},
        opsets=[helper.make_opsetid("some.vendor", 1)],
    )
    assert [a.name for a in compact(model).graph.node[0].attribute] == ["shape"]
