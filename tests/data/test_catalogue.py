"""The tables of data sets and the check of a recipe's `data`."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from netzip_mlflow.data import SOURCES, check, missing, names
from netzip_mlflow.data.catalogue import FACTORY, TORCHVISION
from netzip_mlflow.recipe import DataSpec


def test_every_entry_names_a_function_that_is_there() -> None:
    for entry in (*SOURCES.values(), *TORCHVISION.values(), FACTORY):
        module, _, function = entry.load.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_names_have_one_line_each() -> None:
    assert list(names())[:3] == ["digits", "npz", "imagefolder"]
    assert all(about and "\n" not in about for about in names().values())


def test_importing_listing_and_checking_load_nothing_heavy() -> None:
    code = (
        "import sys; from netzip_mlflow import data; data.names();"
        "data.check({'data': {'name': 'CIFAR10', 'path': '.'}});"
        "heavy = {'torch', 'torchvision', 'sklearn', 'PIL', 'pandas', 'mlflow'} & set(sys.modules);"
        "print(*heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "data",
    [
        {"name": "digits"},
        {"name": "digits", "size": 28, "test": 0.2},
        {"name": "imagefolder", "path": ".", "size": 32},
        {"name": "CIFAR10", "path": "not-there-yet"},
        {"name": "EMNIST", "path": ".", "arguments": {"split": "letters"}},
        {"factory": "my.data:load", "arguments": {"n": 3}, "groups": "track"},
        # the schema's business, not ours
        {},
        {"name": 3},
        {"name": "digits", "factory": "a:b"},
        None,
        [],
    ],
)
def test_a_fine_section_has_no_problems(data) -> None:
    assert check({"data": data}) == []
    assert check({}) == []


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        ({"name": "digit"}, "data.name", "no data set is called 'digit'.*did you mean 'digits'"),
        ({"name": "cifar10"}, "data.name", "did you mean 'CIFAR10'"),
        ({"name": "npz"}, "data.path", "is missing; allowed: the file of npz"),
        ({"name": "npz", "path": "none.npz"}, "data.path", "no such file: none.npz"),
        ({"name": "npz", "path": "."}, "data.path", r"\. is a folder"),
        ({"name": "imagefolder", "path": "none"}, "data.path", "no such folder: none"),
        ({"name": "imagefolder", "path": __file__}, "data.path", "is a file"),
        ({"name": "CIFAR10"}, "data.path", "is missing; allowed: the root of CIFAR10"),
        ({"name": "CIFAR10", "path": __file__}, "data.path", "is a file"),
        ({"name": "digits", "path": "."}, "data.path", "digits takes no path; allowed: size"),
        ({"name": "digits", "groups": "g"}, "data.groups", "digits takes no groups"),
        ({"name": "digits", "arguments": {"n": 1}}, "data.arguments", "takes no arguments"),
        ({"name": "npz", "path": __file__, "size": 8}, "data.size", "npz takes no size"),
        ({"factory": "my.data.load"}, "data.factory", "'my.data.load'; allowed: module:function"),
        ({"factory": "a:b", "path": "x"}, "data.path", "a factory takes no path"),
    ],
)
def test_a_problem_says_where_and_what(data: dict, where: str, what: str) -> None:
    (problem,) = check({"data": data})
    assert problem.where == where
    with pytest.raises(AssertionError, match=what):
        raise AssertionError(str(problem))


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    data = {"name": "npz", "path": str(tmp_path / "none.npz"), "size": 3, "arguments": {"a": 1}}
    problems = check({"data": data})
    assert [p.where for p in problems] == ["data.size", "data.arguments", "data.path"]


@pytest.mark.parametrize(("name", "kind"), [("npz", "file"), ("imagefolder", "folder")])
def test_what_is_not_there_yet_is_no_fault_of_a_plan(tmp_path: Path, name: str, kind: str) -> None:
    data = {"name": name, "path": str(tmp_path / "none")}
    assert check({"data": data}, files=False) == []
    problem = missing(DataSpec(**data))
    assert problem is not None
    assert str(problem) == (
        f"data.path: no such {kind}: {tmp_path / 'none'}; allowed: an existing {kind}"
    )


def test_a_path_of_another_kind_is_a_fault_of_a_plan_too(tmp_path: Path) -> None:
    (problem,) = check({"data": {"name": "npz", "path": str(tmp_path)}}, files=False)
    assert problem.what.endswith("is a folder")


def test_what_is_there_or_embedded_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "images.npz").touch()
    assert missing(DataSpec(name="npz", path=str(tmp_path / "images.npz"))) is None
    assert missing(DataSpec(name="imagefolder", path=str(tmp_path))) is None
    assert missing(DataSpec(name="digits")) is None
    assert missing(DataSpec(factory="my.data:load")) is None
