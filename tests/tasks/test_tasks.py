"""The task protocol and its table."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netzip_mlflow import tasks
from netzip_mlflow.metrics import accuracy
from netzip_mlflow.recipe import DataSpec, Recipe
from netzip_mlflow.tasks import Task, accuracies, complete, open_task
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


def test_every_accuracy_that_a_score_may_use_is_measured() -> None:
    names = accuracies(Classification.metrics)
    assert names[0] == Classification.primary == "top1"
    assert set(names) <= accuracy.classification(np.eye(6), np.arange(6)).keys()


def test_a_recipe_s_accuracy_is_the_task_s_unless_it_names_one() -> None:
    raw = {"name": "a", "data": {"name": "digits"}, "model": {"name": "lenet5"}, "train": {}}
    plain = Recipe.model_validate(raw)
    assert complete(plain).score.accuracy == Classification.primary
    named = Recipe.model_validate(raw | {"score": {"accuracy": "f1_macro"}})
    assert complete(named).score.accuracy == "f1_macro"


def test_nobody_else_knows_the_names_of_accuracies() -> None:
    package = Path(tasks.__file__).parents[1]
    # beside the task: its metrics, and examples of a published header in the command line's help
    allowed = {"metrics/accuracy.py", "tasks/classification.py"}
    examples = {"cli/commands.py": 2, "cli/arguments.py": 1}
    names = re.compile(r"\b(top1|top5|[a-z]\w+_macro)\b")
    for file in package.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and isinstance(node.body[0], ast.Expr)
        }
        strings = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documented
        ]
        known = [text for text in strings if names.search(text)]
        where = file.relative_to(package).as_posix()
        if where not in allowed:
            assert len(known) == examples.get(where, 0), f"{where}: {known}"
