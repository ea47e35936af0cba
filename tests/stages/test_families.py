"""Metric families of a user's own go through a command: table, report, views, runs, tags."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from netzip_mlflow.cli import output
from netzip_mlflow.stages.compare import compare
from netzip_mlflow.stages.measure import measure

FAMILIES = "[own_metrics:Nodes, own_metrics:Dark, own_metrics:Queue, own_metrics:Breaks]"


@pytest.fixture(scope="module")
def measured(run_compress, compressed, user_code):
    """The same recipe, measured by further families."""
    change = f"measure.families={FAMILIES}"
    return run_compress(compressed.folder, change, only=("int8",))


class TestCompress:
    def test_figures_are_metrics_of_each_run(self, measured):
        runs = measured.runs
        own, plain = (runs[name].data.metrics for name in ("int8", "baseline"))
        assert plain["graph/nodes"] > 0
        assert own["graph/nodes"] != plain["graph/nodes"]
        assert (own["graph/place"], plain["graph/place"]) == (1.0, 2.0)
        for prefix in ("", "validation/"):
            assert 0.1 < own[f"{prefix}robustness/dark_agreement"] <= 1

    def test_reasons_for_absence_are_in_the_tag(self, measured):
        facts = json.loads(measured.runs["int8"].data.tags["netzip.facts"])
        assert facts["absent graph/broken"] == "Breaks: ZeroDivisionError: by design"
        for prefix in ("", "validation/"):
            reason = facts[f"absent {prefix}robustness/night_agreement"]
            assert reason == "no lamp could be switched off"

    def test_columns_stand_in_table_report_and_views(self, measured):
        parent = measured.outcome.run_id
        value = measured.runs["int8"].data.metrics["robustness/dark_agreement"]
        shown = output.compress_text(measured.outcome, "sqlite:///mlflow.db")
        assert " Dark" in shown
        assert " Nodes" in shown
        assert "Place" not in shown, "it has no header"
        assert f"{100 * value:.2f} %" in shown
        page = measured.fetch(parent, "report.html").read_text(encoding="utf-8")
        assert "<th>Dark</th>" in page
        assert "Answers that stay in the dark" in page
        table = pd.read_csv(measured.fetch(parent, "comparison.csv"))
        assert {"graph/nodes", "graph/place", "absent graph/broken"} <= {*table.columns}
        assert any("robustness_dark" in file for file in measured.files(parent, "plots"))

    def test_later_comparisons_read_them_back(self, measured, inside):
        runs = [run.info.run_id for run in measured.runs.values()]
        _, ((frame, _),) = compare(measured.options, runs)
        assert frame["graph/nodes"].notna().all()
        assert {*frame["absent graph/broken"]} == {"Breaks: ZeroDivisionError: by design"}


def test_measure_asks_them_too(measured, inside):
    (model,) = measured.runs["int8"].outputs.model_outputs
    subjects = measure([f"models:/{model.model_id}"], measured.options, recipe=measured.recipe)
    for _, each in subjects:
        assert each.metrics["graph/nodes"] > 0
        assert each.absent["graph/broken"].endswith("by design")
    assert " Nodes" in output.measure_text(subjects)
