"""The task protocol and its table."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from netzip_mlflow import tasks
from netzip_mlflow.errors import InputError
from netzip_mlflow.metrics import Metric, accuracy
from netzip_mlflow.recipe import DataSpec, Recipe
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.tasks import Task, accuracies, complete, open_task
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.tasks.task_base import TaskBase


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
            r"task: unknown task .*; allowed: classification, or module:Class \(did you mea",
        ),
        (
            {"task": "not_here:Class"},
            "task: not_here cannot be imported: No module named 'not_here'",
        ),
        (
            {"task": "waves:Period"},
            r"task: waves has no function 'Period'; allowed: .*Periods.*did you mean 'Periods'",
        ),
        ({"task": "waves:network"}, "task: waves:network has no name, primary, metrics, open"),
        ({"task": "waves:Periods"}, None),
        (
            {"task": "waves:Periods", "score": {"accuracy": "top1"}},
            "score.accuracy: 'top1' is not allowed; allowed: nearness",
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


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `half_tasks` with tasks that are not whole."""
    import waves

    class Nameless(waves.Periods):
        def __init__(self, data: Any) -> None:
            super().__init__(data)
            del self.sizes

    class Silent(TaskBase):
        name, primary = "silent", "p"
        metrics = (Metric("accuracy/p", "P", "p", "more"),)
        outputs = OutputSpec.of(p=(1,))

    module = ModuleType("half_tasks")
    vars(module).update(Nameless=Nameless, Silent=Silent)
    monkeypatch.setitem(sys.modules, "half_tasks", module)


@pytest.mark.usefixtures("halves")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half_tasks:Nameless", "task: half_tasks:Nameless has no sizes; allowed: what netzip_m"),
        ("half_tasks:Silent", "task: half_tasks:Silent cannot be opened: TypeError: .*differ"),
    ],
)
def test_a_task_that_is_not_whole(name: str, message: str) -> None:
    spec = DataSpec(factory="waves:signals", test=0.2, calibration=8)
    with pytest.raises(InputError, match=message):
        open_task(name, spec, 0)


def test_no_other_room_knows_what_a_target_or_an_answer_is() -> None:
    """Words of classification stand in the task, its metrics, and data sets that have labels."""
    package = Path(tasks.__file__).parents[1]
    rooms = (
        "techniques quantisation edits deployable cache runs training.py distillation.py twin.py"
    )
    words = re.compile(r"\b(labels|logits|softmax|cross_entropy)\b")
    files = [f for room in rooms.split() for f in sorted(package.glob(room))]
    sources = [g for f in files for g in (sorted(f.rglob("*.py")) if f.is_dir() else [f])]
    assert len(sources) > 40
    assert [f"{f.name}: {w}" for f in sources for w in words.findall(f.read_text())] == []


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
