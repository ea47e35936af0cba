"""What a study is bound by, of a user's code and of an installed technique's."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netzip_mlflow.stages.search import provenance

TASK: Any = SimpleNamespace(digest="d")
HEAD = "name: r\ndata: {name: digits}\nsearch: {space: [{half: {}}]}\n"
TRAIN = HEAD + "model: {name: lenet5}\ntrain: {}\n"
CODE = '''
def provenance_shrink(twin, context):
    """Shrinks."""
    return twin
'''


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`write(text)` replaces the module `code_of_a_study`."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(text: str) -> None:
        (tmp_path / "code_of_a_study.py").write_text(text)
        sys.modules.pop("code_of_a_study", None)
        importlib.invalidate_caches()

    yield written
    sys.modules.pop("code_of_a_study", None)


def parts(recipe) -> dict[str, str]:
    network: Any = SimpleNamespace(digest=lambda: "the network's")
    return provenance.parts(recipe, TASK, lambda: network, pytest.fail)


def test_code_that_a_stored_twin_may_import_is_bound(loads, write):
    name = "code_of_a_study:provenance_shrink"
    recipe = loads(f"{HEAD}model: {{uri: 'models:/m/1', allow: ['{name}']}}\n")
    write(CODE)
    before = parts(recipe)
    assert before["weights"] == "the network's"
    write(CODE + "\n# changed\n")
    after = parts(recipe)
    assert {key for key in before if before[key] != after[key]} == {name}


@pytest.mark.parametrize(
    ("said", "bound"),
    [("candidates: {a: [{shrink: {}}]}\n", True), ("candidates: {a: [{half: {}}]}\n", False)],
)
def test_an_installed_function_is_bound_where_it_is_named(loads, write, monkeypatch, said, bound):
    point = EntryPoint("shrink", "code_of_a_study:provenance_shrink", "netzip_mlflow.techniques")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    write(CODE)
    before = parts(loads(TRAIN + said))
    write(CODE + "\n# changed\n")
    after = parts(loads(TRAIN + said))
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert changed == ({"shrink"} if bound else set())
