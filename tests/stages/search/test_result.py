"""What a search leaves behind: trials of a database that others can write to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.search import records
from netzip_mlflow.stages.search import result


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
    trial = SimpleNamespace(number=3, user_attrs={records.ENTRIES: json.dumps([entry])})
    monkeypatch.setattr(records, "ended", lambda _study: [trial])
    monkeypatch.setattr(records, "ranked", lambda trials: trials)
    monkeypatch.setattr(records, "rows", lambda _study, _objectives: [])
    run = SimpleNamespace(artifact=lambda *_: None)
    work = SimpleNamespace(folder=tmp_path, run=run, piece=lambda *_: None)
    trials: Any = SimpleNamespace(recipe=recipe, study=None, work=work)
    with pytest.raises(NetzipError, match="trials name left_behind:"):
        result.finish(trials, "s", "sqlite://")
    assert "left_behind" not in sys.modules
