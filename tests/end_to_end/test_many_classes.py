"""The shape of `recipes/resnet50_pruning_vs_quantisation.yaml`: its candidates, 1,000 classes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from netzip_mlflow.report.html import LIMIT_BYTES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
CLASSES = 1000
SHORT = {"epochs": 1, "batch": 128, "round_to": 2}


def smaller(step: Any) -> Any:
    """A step of a chain as the recipe has it, with less training and fewer channels at once."""
    if isinstance(step, str):
        return step
    ((name, parameters),) = step.items()
    return {name: {key: SHORT.get(key, value) for key, value in parameters.items()}}


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """The recipe with another network and other data."""
    text = (ROOT / "recipes" / "resnet50_pruning_vs_quantisation.yaml").read_text(encoding="utf-8")
    whole = yaml.safe_load(text)
    return {
        "name": whole["name"],
        "data": {
            "factory": "many_classes:images",
            "arguments": {"classes": CLASSES},
            "validation": 0.34,
            "calibration": 256,
        },
        "model": {"factory": "many_classes:network"},
        "train": {"epochs": 8, "optimizer": "adamw", "lr": 0.004, "batch": 128, "threads": 1},
        "candidates": {
            name: [smaller(step) for step in chain] for name, chain in whole["candidates"].items()
        },
        "measure": {"latency": {"target": 0.5, "max_seconds": 5, "min_rounds": 5}},
        "score": whole["score"],
    }


def test_it_ends_with_a_report_that_fits(recipe, migrated, tmp_path, monkeypatch):
    import shutil

    import mlflow

    from netzip_mlflow import data, models, tasks, techniques
    from netzip_mlflow.recipe import load
    from netzip_mlflow.runs.job import Options
    from netzip_mlflow.stages.compress import compress

    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    checks = [data.check, models.check, tasks.check, techniques.check]
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    outcome = compress(load(Path("recipe.yaml"), [], checks), Options(uri, "many"))
    assert len(outcome.candidates) == 1 + len(recipe["candidates"]) == 16
    assert [c.name for c in outcome.candidates if c.error] == []

    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([outcome.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    note = client.get_run(outcome.run_id).data.tags["mlflow.note.content"]
    assert "Not made" not in note
    page = Path(client.download_artifacts(outcome.run_id, "report.html")).read_text("utf-8")
    assert len(page.encode()) < LIMIT_BYTES
    for name in recipe["candidates"]:
        assert f"<h3>{name}</h3>" in page or f"<h3>★ {name}" in page
    assert page.count("<svg") >= 3
    said = re.findall(r"([\d,]+) of 1,000 classes are not shown", page)
    assert len(said) == len(recipe["candidates"])

    one = outcome.candidates[1]
    table = pd.read_csv(client.download_artifacts(one.run.id, "per_class.csv"))
    assert len(table) == CLASSES
    worst = table.sort_values("recall_change_points", kind="stable")["class"].iloc[0]
    assert f">{worst}</td>" in page
