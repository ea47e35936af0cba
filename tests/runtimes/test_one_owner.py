"""No file outside `runtimes` names a runtime: one table does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import netzip_mlflow
from netzip_mlflow.runtimes import TABLE

PACKAGE = Path(netzip_mlflow.__file__).parent
LIBRARIES = ("onnxruntime", "onnx.reference")  # what the table's runtimes are built on
# Where one of those is a tool, and does not run a deployable; file or folder -> what it may name.
TOOLS = {
    "quantisation": "onnxruntime.quantization",  # ranges of activations, the QDQ form
    "techniques/dynamic_int8.py": "onnxruntime.quantization",
    "techniques/half.py": "onnxruntime.transformers.float16",
    "metrics/graph.py": "onnx.reference",  # constants, unpacked before anything is counted
}
SCRIPT = "stages/export.py"  # writes a script for whoever deploys a file, without this package


def named(source: str) -> Iterator[str]:
    """The libraries of runtimes, and the modules and names of our table, that a source names."""
    tree = ast.parse(source)
    words = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (m for m in modules if m.startswith(LIBRARIES))
        ours = [f"netzip_mlflow.runtimes.{name}" for name in TABLE]
        yield from (m for m in modules if m.startswith(tuple(ours)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in words:
            yield from (name for name in TABLE if node.value == name)
            yield from (name for name in LIBRARIES if name in node.value != name)


@pytest.mark.parametrize(
    "source",
    [
        "import onnxruntime as ort",
        "from onnxruntime.quantization import QuantType",
        "from netzip_mlflow.runtimes.onnxruntime import OnnxRuntime",
        "from netzip_mlflow.runtimes import reference",
        "def f():\n    find('onnxruntime')",
        "from onnx.reference import ReferenceEvaluator",
        "SCRIPT = 'import onnxruntime\\n'",
    ],
)
def test_a_name_is_seen(source):
    assert len([*named(source)]) == 1


def test_words_about_it_are_no_names():
    assert [*named('"""Needs onnxruntime."""\nfrom netzip_mlflow.runtimes import find')] == []


def test_no_file_outside_the_room_names_a_runtime():
    seen = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE).as_posix()
        if place.startswith("runtimes/"):
            continue
        may = [tool for where, tool in TOOLS.items() if place.startswith(where)]
        wrong = [name for name in named(file.read_text()) if not name.startswith(tuple(may))]
        if wrong:
            seen[place] = wrong
    script = seen.pop(SCRIPT)
    assert set(script) == {"onnxruntime"}
    assert seen == {}
