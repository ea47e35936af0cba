"""Every file and every process is read and written in an encoding that is written out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import netzip_mlflow

ROOT = Path(netzip_mlflow.__file__).parent
TEXTS = {"read_text", "write_text", "to_csv", "savetxt", "loadtxt", "NamedTemporaryFile"}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def texts(node: ast.Call) -> bool:
    """Whether a call reads or writes text in the encoding that it names, or in the locale's."""
    name, keywords = called(node), {k.arg: k.value for k in node.keywords}
    if name in {"run", "Popen", "check_output"}:
        return bool(keywords.keys() & {"text", "universal_newlines", "encoding"})
    if name in {"open", "fdopen"}:
        given = [*node.args, *[v for k, v in keywords.items() if k == "mode"]]
        modes = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        # the cache's, a data set's and a task's `open` take neither a mode nor an encoding
        return any(set(m) <= set("rwxat+") for m in modes) or not (given or keywords)
    return name in TEXTS


@pytest.mark.parametrize("module", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_an_encoding_is_named(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and texts(node)]
    unnamed = [
        f"{module.name}:{node.lineno}: {called(node)}"
        for node in calls
        if not any(k.arg == "encoding" for k in node.keywords)
        and not (called(node) == "open" and ast.unparse(node.func).startswith("StageCache"))
    ]
    assert unnamed == []
