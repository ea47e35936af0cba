from __future__ import annotations

import math
import subprocess
import sys

import pytest

from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import ScoreSpec
from netzip_mlflow.recipe import Weights as SpecWeights
from netzip_mlflow.scoring import SIZES, SPEEDS, Basis, Weights


def test_label_names_everything():
    basis = Basis("map50", "latency", "cpu", Weights(P=1, S=2.5, C=0, E=1), zeta=1.5)
    assert basis.label() == "accuracy=map50 speed=latency size=cpu zeta=1.5 lambdas=1,2.5,0,1"


def test_from_spec_takes_every_field():
    spec = ScoreSpec(
        accuracy="top5", speed="macs", size="zip", weights=SpecWeights(P=1, S=2, C=3, E=4), zeta=0.5
    )
    assert Basis.from_spec(spec) == Basis("top5", "macs", "zip", Weights(1, 2, 3, 4), 0.5)


def test_recipe_and_basis_allow_the_same_speeds_and_sizes():
    schema = ScoreSpec.model_json_schema()["properties"]
    assert schema["speed"]["enum"] == list(SPEEDS)
    assert schema["size"]["enum"] == list(SIZES)


def test_every_fault_of_a_basis_is_said_at_once():
    with pytest.raises(InputError) as caught:
        Basis(accuracy="top 1", speed="latenzy", size="disc", zeta=-1)
    assert [p.where for p in caught.value.problems] == ["speed", "size", "accuracy", "zeta"]
    assert "did you mean 'latency'?" in str(caught.value)
    assert "did you mean 'disk'?" in str(caught.value)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_weights_are_finite_and_not_negative(value):
    with pytest.raises(InputError, match=r"weights\.C"):
        Weights(C=value)


def test_weights_from_text():
    assert Weights.parse("P=0.5, E=0") == Weights(P=0.5, E=0)
    assert Weights.parse("") == Weights()


@pytest.mark.parametrize("text", ["P", "P=x", "Q=1", "P=1,P=2", "S=-1", "p=1"])
def test_weights_from_bad_text(text):
    with pytest.raises(InputError, match="weights"):
        Weights.parse(text)


def test_import_needs_nothing_but_the_standard_library():
    heavy = ("numpy", "pandas", "torch", "pydantic", "mlflow", "onnx")
    code = f"import netzip_mlflow.scoring, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
