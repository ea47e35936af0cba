from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from netzip_mlflow import factories, runtimes
from netzip_mlflow.errors import InputError, NetzipError


@pytest.mark.parametrize("name", runtimes.TABLE)
def test_every_runtime_of_the_table_offers_the_protocol(name):
    runtime = runtimes.find(name)
    assert callable(runtime.load)
    assert callable(runtime.executed)
    assert runtime.timed in (True, False)
    assert runtimes.names()[name] == runtime.about


def test_the_default_is_one_that_may_score():
    assert runtimes.problems([runtimes.DEFAULT], "here") == []


def test_an_unknown_runtime_is_refused_with_what_is_near():
    with pytest.raises(InputError) as caught:
        runtimes.find("onnxruntme")
    text = str(caught.value)
    assert "'onnxruntme' is unknown" in text
    assert "onnxruntime, reference, module:Class" in text
    assert "did you mean 'onnxruntime'?" in text


@pytest.mark.parametrize(
    ("chosen", "parts"),
    [
        ([], ("is empty",)),
        (["reference"], ("reference comes first", "onnxruntime, reference")),
        (["onnxruntime", "onnxruntime"], ("onnxruntime", "twice")),
        (["onnxruntime", "openvin"], ("'openvin' is unknown",)),
        (["onnxruntime", "no_such_module:Runtime"], ("no_such_module", "cannot be imported")),
        (["onnxruntime", "collections:Counter"], ("lacks about, timed, load, executed",)),
        (["onnxruntime", "fractions:no"], ("has no function 'no'",)),
    ],
)
def test_a_recipe_is_told_what_is_wrong_with_its_runtimes(chosen, parts):
    (problem,) = runtimes.check({"measure": {"runtimes": chosen}})
    assert problem.where == "measure.runtimes"
    for part in parts:
        assert part in str(problem)


@pytest.mark.parametrize("raw", [{}, {"measure": None}, {"measure": {"runtimes": "x"}}])
def test_what_the_schema_judges_is_left_to_it(raw):
    assert runtimes.check(raw) == []


def test_installed_runtimes_are_named_beside_ours(monkeypatch):
    target = runtimes.TABLE["reference"]
    monkeypatch.setattr(
        factories,
        "installed",
        lambda group: {"theirs": target} if group == "netzip_mlflow.runtimes" else {},
    )
    assert [*runtimes.names()] == ["onnxruntime", "reference", "theirs"]
    assert not runtimes.find("theirs").timed


class TestEvaluator:
    def model(self, op="Relu", domain=""):
        graph = helper.make_graph(
            [helper.make_node(op, ["x"], ["y"], domain=domain)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        )
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    @pytest.mark.parametrize("as_written", [False, True])
    def test_a_graph_is_a_function(self, as_written):
        x = np.array([[-1, 2]], np.float32)
        (y,) = runtimes.evaluator(self.model(), as_written=as_written)({"x": x})
        assert y.tolist() == [[0, 2]]

    def test_what_fails_is_an_error_of_ours(self):
        with pytest.raises(NetzipError, match="ONNX Runtime says"):
            runtimes.evaluator(self.model("Unheard", "own"))
        run = runtimes.evaluator(self.model())
        with pytest.raises(NetzipError, match="ONNX Runtime says"):
            run({"x": np.zeros((1, 3), np.float32)})


@pytest.mark.parametrize(
    "module",
    [
        "statistics",
        "metrics.accuracy",
        "metrics.fidelity",
        "metrics.latency",
        "metrics.machine",
        "metrics.operations",
        "metrics.process",
        "metrics.size",
        "runtimes.onnxruntime",
        "runtimes.reference",
    ],
)
def test_nothing_heavy_is_imported(module):
    """An edge device has numpy, onnx, onnxruntime and psutil."""
    heavy = ["torch", "torchvision", "pandas", "matplotlib", "scipy", "sklearn", "mlflow"]
    code = f"import sys, netzip_mlflow.{module}\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_alone_load_nothing():
    code = (
        "import sys, netzip_mlflow.runtimes\n"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
