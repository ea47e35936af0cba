"""Training with few bits: accuracy comes back, the file is small and executed as int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import onnx
import pytest

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.ptq import PTQ
from netzip_mlflow.techniques.qat import QAT
from netzip_mlflow.twin import Twin

Optimised = Callable[[onnx.ModelProto], list[str]]


@pytest.fixture(scope="module")
def narrow(twin: Twin, context: Context) -> Twin:
    """Three values everywhere, trained for four epochs."""
    return QAT(bits="ternary", edges="ternary", epochs=4, lr=0.05, batch=32).apply(twin, context)


def test_training_wins_back_what_rounding_lost(
    narrow: Twin, twin: Twin, task: Classification, context: Context
) -> None:
    from netzip_mlflow.quantisation.calibration import accuracy

    rounded = accuracy(PTQ(bits="ternary", edges="ternary").apply(twin, context).model, task)
    trained = accuracy(PTQ().apply(narrow, context).model, task)
    assert trained > rounded + 0.03


def test_the_file_computes_what_was_trained(
    narrow: Twin, task: Classification, context: Context
) -> None:
    """Only activations are rounded on the way, so that answers hardly change."""
    from netzip_mlflow.quantisation.calibration import accuracy

    shipped = accuracy(PTQ().apply(narrow, context).model, task)
    assert shipped == pytest.approx(task.validate(narrow.network()), abs=0.05)


def test_it_is_executed_as_int8(narrow: Twin, context: Context, optimised: Optimised) -> None:
    kinds = optimised(PTQ().apply(narrow, context).model)
    assert (kinds.count("QLinearConv"), kinds.count("QGemm")) == (2, 1)
    assert not {"Conv", "FusedConv", "Gemm", "Mod"} & set(kinds)


def test_edges_are_wider_by_default(twin: Twin, context: Context) -> None:
    made = QAT(bits="ternary", epochs=1).apply(twin, context)
    forms = {name: grid.form for name, grid in made.grids.items()}
    assert forms == {"conv1": "int8", "conv2": "ternary", "linear": "int8"}


def test_the_budget_is_spent_on_the_layers_that_suffer(twin: Twin, context: Context) -> None:
    sizes = {"conv1": 216, "conv2": 1152, "linear": 64}
    for budget in (2.0, 2.2, 2.5, 4.0):
        made = QAT(bits=2, edges=2, budget=budget, epochs=1).apply(twin, context)
        stored = sum(sizes[n] * (4 if g.form == "int4" else 2) for n, g in made.grids.items())
        assert stored / sum(sizes.values()) <= budget
        assert all(g.form == "int4" for g in made.grids.values()) == (budget == 4.0)
    with pytest.raises(NetzipError, match=r"qat.budget: 1 bits given, and .* the mean is 2"):
        QAT(bits=2, edges=2, budget=1.0).apply(twin, context)


def test_a_teacher_that_is_not_there(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError, match="the context has no teacher"):
        QAT(teacher="baseline").apply(twin, dataclasses.replace(context, teacher=None))
