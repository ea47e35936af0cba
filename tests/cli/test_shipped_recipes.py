"""Every recipe of the project is planned where there is no data, no store and no network."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import yaml

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
every_recipe = pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)


@pytest.fixture
def bare(place, monkeypatch) -> Path:
    """A folder that holds nothing, data folders that are not there, a store that nobody serves."""

    def refuse(*_args: Any, **_keys: Any) -> None:
        raise URLError("no test reaches the network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(place / "hub"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name in ("NETZIP_DATA", "TINY_IMAGENET"):
        monkeypatch.setenv(name, str(place / name))
    return place


def places_without(given: dict[str, Any]) -> set[str]:
    """Where a recipe names something that `bare` lacks."""
    weights = {"model.weights"} if "weights" in given["model"] else set()
    return weights | ({"data.path"} if "path" in given["data"] else set())


@every_recipe
def test_a_dry_run_needs_neither_data_nor_store(file, netzip, bare):
    given = yaml.safe_load(file.read_text())
    ended = netzip("compress", file, "--dry-run", "--json")
    assert (ended.status, ended.err) == (0, "")
    plan = ended.object
    assert plan["name"] == given["name"]
    named = [step["step"].split(":")[0] for step in plan["steps"]]
    assert [name for name in named if name in given["candidates"]] == list(given["candidates"])
    assert {text.split(":")[0] for text in plan["missing"]} == places_without(given)
    assert (plan["seconds"] is None) == ("path" in given["data"]), "known where the data are"
    assert list(bare.iterdir()) == []


@every_recipe
def test_what_is_not_there_is_refused_when_it_is_meant(file, netzip, store, bare, monkeypatch):
    """The plan of a recipe promises nothing: the command itself still says what it lacks."""
    given = yaml.safe_load(file.read_text())
    if not places_without(given):
        pytest.skip("its data are embedded")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{bare}/mlflow.db")
    ended = netzip("compress", file, "--quiet")
    assert (ended.status, ended.out) == (2, "")
    assert "data.path: " in ended.err
    assert store.all_runs() == []
