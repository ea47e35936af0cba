"""What a search leaves behind: trials of a database that others can write to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.search import told
from netzip_mlflow.stages import found


@pytest.mark.parametrize(
    "entry", [{"left_behind:shrink": {}}, {"distil": {"student": "left_behind:make"}}]
)
def test_code_that_only_the_study_names_is_not_imported(
    entry: dict[str, Any], loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left_behind.py").write_text(
        "def shrink(twin, context): return twin\nmake = shrink"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = loads("name: r\ndata: {name: digits}\nmodel: {name: lenet5}\ntrain: {}\n")
    trial = SimpleNamespace(number=3, user_attrs={told.ENTRIES: json.dumps([entry])})
    monkeypatch.setattr(told, "ended", lambda _study: [trial])
    monkeypatch.setattr(told, "ranked", lambda trials: trials)
    monkeypatch.setattr(told, "rows", lambda _study, _objectives: [])
    trials: Any = SimpleNamespace(recipe=recipe, study=None, task=None, origin=None, cache=None)
    run = SimpleNamespace(artifact=lambda *_: None)
    work: Any = SimpleNamespace(folder=tmp_path, run=run, piece=lambda *_: None)
    with pytest.raises(NetzipError, match="trials name left_behind:"):
        found.finish(work, trials, "s", "sqlite://", None)  # type: ignore[arg-type]
    assert "left_behind" not in sys.modules
