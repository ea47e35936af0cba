from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from netzip_mlflow.errors import InputError
from netzip_mlflow.metrics.graph import Graph, read_model
from netzip_mlflow.metrics.operands import attribute, find

node = helper.make_node


@pytest.mark.parametrize(
    ("form", "kinds"),
    [
        ("float", ["Conv", "Conv", "Conv", "MatMul", "Gemm"]),
        ("qdq", ["Conv", "Conv", "Conv", "MatMul", "Gemm"]),
        ("qoperator", ["QLinearConv", "QLinearConv", "QLinearConv", "QLinearMatMul", "QGemm"]),
        ("dynamic", ["ConvInteger", "ConvInteger", "ConvInteger", *["MatMulInteger"] * 2]),
    ],
)
def test_layers_and_their_operands_are_found_in_every_form(forms, known, form, kinds):
    graph = Graph(read_model(forms[form]))
    found = find(graph)
    assert [operands.node.op_type for operands in found] == kinds
    assert [graph.value(operands.weight).size for operands in found] == list(known.weights.values())
    assert not any(graph.is_constant(operands.activation) for operands in found)
    if form in ("qoperator", "dynamic"):
        assert all(graph.is_constant(operands.zero_point) for operands in found)
    if form != "dynamic":
        sizes = [graph.value(o.bias).size if o.bias else 0 for o in found]
        assert sizes == list((known.biases | {"product": 0}).values())


def test_a_layer_without_a_name_goes_by_its_output(build):
    model = build(
        [node("Conv", ["x", "w"], ["y"])],
        {"w": np.ones((1, 3, 1, 1), np.float32)},
        {"y": ["batch", 1, 8, 8]},
    )
    assert [operands.name for operands in find(Graph(model))] == ["y"]


def test_every_problem_is_named_at_once(build):
    w = {"w": np.ones((8, 8), np.float32)}
    nodes = [
        node("Einsum", ["x", "w"], ["a"], name="first", equation="bchw,wk->bchk"),
        node("Odd", ["a", "w"], ["y"], name="second", domain="own"),
    ]
    with pytest.raises(InputError) as caught:
        find(Graph(build(nodes, w, {"y": ["batch", 3, 8, 8]}, domains=["own"])))
    assert [problem.where for problem in caught.value.problems] == ["first", "second"]


def test_attributes_default_to_zero():
    gemm = node("Gemm", ["a", "b"], ["c"], transB=1)
    assert (attribute(gemm, "transB"), attribute(gemm, "transA")) == (1, 0)
