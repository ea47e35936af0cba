"""What leaves a command: JSON that any parser reads, CSV files that no spreadsheet executes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from netzip_mlflow.stages import catalogue

LINK = '=HYPERLINK("http://a.example","here")'


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("inf")])
def test_json_has_null_for_what_is_not_finite(netzip, place, monkeypatch, value):
    facts = {"plain": 0.5, "alone": value, "deep": [{"a": value, "b": 1}, (value, "x")]}
    monkeypatch.setattr(catalogue, "examine", lambda _uri: facts)
    ended = netzip("doctor", "--json")
    assert json.loads(ended.out, parse_constant=refuse) == {
        "plain": 0.5,
        "alone": None,
        "deep": [{"a": None, "b": 1}, [None, "x"]],
    }


def test_no_file_of_a_run_holds_a_formula(netzip, save, store, arrays, no_pictures):
    """Neither the names of classes nor what a user's code raises become one."""
    names = [LINK, "@SUM(A1)", "-cat", "+dog"]
    np.savez("stripes.npz", **arrays, classes=np.array(names))
    Path("linking.py").write_text(
        f"def link(twin, context):\n    from netzip_mlflow.errors import NetzipError\n"
        f"    raise NetzipError({LINK!r})\n"
    )
    save(candidates={"half": ["half"], "link": ["linking:link"]}, score={"max_drop_points": 100})
    ended = netzip("compress", "recipe.yaml", "--json", "--quiet")
    assert ended.status == 0
    files = {"comparison.csv", "per_class.csv", "layers.csv"}
    cells = {}
    for run in store.all_runs():
        for item in store.list_artifacts(run.info.run_id):
            if item.path.endswith(".csv"):
                place = store.download_artifacts(run.info.run_id, item.path)
                with Path(place).open(newline="", encoding="utf-8") as file:
                    read = [cell for row in csv.reader(file) for cell in row]
                cells.setdefault(item.path, []).extend(read)
    assert set(cells) == files
    for name, inside in cells.items():
        bad = [c for c in inside if c.startswith(("=", "+", "-", "@", "\t", "\r"))]
        numbers = [c for c in bad if c[1:].replace(".", "").replace("e-", "").isdigit()]
        assert bad == numbers, name
    assert {f"'{name}" for name in names} <= set(cells["per_class.csv"])
    assert f"'{LINK}" in cells["comparison.csv"]
