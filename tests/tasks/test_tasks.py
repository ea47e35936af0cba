"""The task protocol and its table."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from netzip_mlflow import tasks
from netzip_mlflow.recipe import DataSpec
from netzip_mlflow.tasks import Task, open_task
from netzip_mlflow.tasks.classification import Classification


def test_a_task_is_opened_by_name() -> None:
    spec = DataSpec(name="digits", validation=0.2, test=0.2)
    made = open_task("classification", spec, 0)
    assert isinstance(made, Classification)
    assert made.digest == Classification.open(spec, 0).digest


def test_classification_keeps_the_protocol(task: Classification) -> None:
    for name, wanted in vars(Task).items():
        if name.startswith("_") or not inspect.isfunction(wanted):
            continue
        found = inspect.signature(getattr(Classification, name))
        for key, parameter in inspect.signature(wanted).parameters.items():
            assert key in found.parameters, f"{name} has no parameter {key}"
            assert found.parameters[key].kind == parameter.kind
    for name in Task.__annotations__:
        assert hasattr(task, name), name


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, None),
        ({"task": "classification"}, None),
        ({"score": {"accuracy": "f1_macro"}}, None),
        ({"score": {}}, None),
        ({"score": None}, None),
        (
            {"task": "clasification"},
            r"task: unknown task .*; allowed: classification \(did you mea",
        ),
        ({"task": 3}, None),  # the schema says so
        ({"task": ["a"]}, None),
        ({"task": {"a": 1}}, None),
        (
            {"score": {"accuracy": "top11"}},
            r"score.accuracy: 'top11' is not allowed; allowed: top1, .*did you mean 'top1'",
        ),
        ({"score": {"accuracy": "map50"}}, "score.accuracy: 'map50' is not allowed"),
    ],
)
def test_check(raw: dict[str, Any], message: str | None) -> None:
    problems = tasks.check(raw)
    if message is None:
        assert problems == []
    else:
        (problem,) = problems
        assert re.match(message, str(problem))


def test_every_accuracy_that_a_score_may_use_is_measured(task: Classification) -> None:
    from netzip_mlflow.metrics.keys import describe

    assert Classification.accuracies[0] == Classification.primary
    assert all(describe(f"accuracy/{name}") for name in Classification.accuracies)
