from __future__ import annotations

import base64
import json
import re
import zlib

import pytest

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.report.views import (
    BASELINE_COLOUR,
    Group,
    View,
    encode,
    link,
    overview,
    search,
    tag,
    trade_offs,
)
from netzip_mlflow.scoring import Basis

GROUP = Group("8f14e45fceea167a", Basis().label(), "P,S,C", "c4ca4238a0b9")
METRICS = [
    "accuracy/top1", "accuracy/drop_points", "score/ocs", "score/feasible", "validation/score/ocs",
    "validation/score/feasible", "ratio/P", "ratio/S", "ratio/C", "ratio/its",
    "speed/latency_ms", "size/disk_bytes", "train/loss",
]  # fmt: skip
TOP1 = "accuracy/top1"
BOTH = pytest.mark.parametrize("make", [overview, trade_offs])


def decode(state):
    scheme, _, body = state.partition(";")
    assert scheme == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(body)))


@BOTH
def test_mlflow_reads_the_filter(make):
    """MLflow's own parser: every clause, back in the form in which its store applies it."""
    search = pytest.importorskip("mlflow.utils.search_utils").SearchUtils
    clauses = search.parse_search_filter(make(METRICS, GROUP, TOP1).state["searchFilter"])
    found = [(c["type"], c["key"], c["comparator"], c["value"]) for c in clauses]
    parents = ["train", "compress", "measure", "compare", "search"]
    assert found == [
        *(("tag", "netzip.kind", "!=", kind) for kind in parents),
        ("tag", "netzip.baseline", "=", GROUP.baseline),
        ("tag", "netzip.basis", "=", GROUP.basis),
        ("tag", "netzip.terms", "=", "P,S,C"),
        ("tag", "netzip.fingerprint", "=", GROUP.fingerprint),
        ("metric", "validation/score/feasible", ">", "0"),
    ]


@BOTH
def test_mlflow_reads_the_order(make):
    search = pytest.importorskip("mlflow.utils.search_utils").SearchUtils
    state = make(METRICS, GROUP, TOP1).state
    way = "ASC" if state["orderByAsc"] else "DESC"
    assert search.parse_order_by_for_search_runs(f"{state['orderByKey']} {way}") == (
        "tag", "netzip.kind", True,
    )  # fmt: skip
    assert sorted(["trial", "candidate", "baseline"])[0] == "baseline"


def test_feasibility_falls_back_to_test_figures_and_to_nothing():
    plain = overview(["score/feasible"], GROUP, TOP1).state["searchFilter"]
    assert plain.endswith("metrics.`score/feasible` > 0")
    assert "feasible" not in overview(["score/ocs"], GROUP, TOP1).state["searchFilter"]


def test_empty_fields_are_not_filtered_on():
    group = Group("", "b", "P,S,C")
    assert "netzip.baseline" not in group.search_filter([])
    assert "netzip.fingerprint" not in group.search_filter([])


def test_a_quote_cannot_become_a_filter():
    with pytest.raises(NetzipError, match=r"netzip\.basis"):
        Group("x", "accuracy='1'", "P").search_filter([])


@BOTH
def test_every_metric_is_charted_once_or_removed_once(make):
    """The page adds a chart of its own for each metric that no chart names."""
    charts = make(METRICS, GROUP, TOP1).state["compareRunCharts"]
    keys = [chart["metricKey"] for chart in charts if "metricKey" in chart]
    assert sorted(keys) == sorted(METRICS)
    removed = {c["metricKey"] for c in charts if c.get("deleted")}
    assert "train/loss" in removed
    assert all(c["isGenerated"] and c["type"] == "BAR" for c in charts if c.get("deleted"))


@BOTH
def test_charts_have_unique_ids_and_a_section_that_exists(make):
    state = make(METRICS, GROUP, TOP1).state
    ids = [chart["uuid"] for chart in state["compareRunCharts"]]
    assert len(ids) == len(set(ids))
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections


def test_overview_shows_score_ratios_and_two_planes():
    charts = overview(METRICS, GROUP, TOP1).state["compareRunCharts"]
    shown = [chart for chart in charts if not chart.get("deleted")]
    assert [c["metricKey"] for c in shown if c["type"] == "BAR"] == [
        "score/ocs", "ratio/P", "ratio/S", "ratio/C", "ratio/its",
    ]  # fmt: skip
    planes = [(c["xaxis"]["key"], c["yaxis"]["key"]) for c in shown if c["type"] == "SCATTER"]
    assert planes == [("speed/latency_ms", "accuracy/top1"), ("size/disk_bytes", "accuracy/top1")]


def test_trade_offs_are_parallel_coordinates_of_known_metrics():
    charts = trade_offs(METRICS, GROUP, TOP1).state["compareRunCharts"]
    (parallel,) = [chart for chart in charts if chart["type"] == "PARALLEL"]
    assert parallel["selectedMetrics"] == [
        "accuracy/top1", "accuracy/drop_points", "ratio/S", "ratio/C", "ratio/its", "score/ocs",
    ]  # fmt: skip


def test_the_accuracy_of_the_basis_is_shown():
    state = overview(["accuracy/map50_95"], GROUP, "accuracy/map50_95").state
    assert "metrics.`accuracy/map50_95`" in state["selectedColumns"]
    assert state["compareRunCharts"][0]["yaxis"]["key"] == "accuracy/map50_95"


def test_a_dozen_columns():
    columns = overview(METRICS, GROUP, TOP1).state["selectedColumns"]
    assert len(columns) == len(set(columns)) == 12
    assert all(re.fullmatch(r"(metrics|tags)\.`[\w./]+`", column) for column in columns)


@BOTH
def test_publishing_twice_overwrites(make):
    first, second = (tag(make(METRICS, GROUP, TOP1), now_ms=now) for now in (1, 2))
    assert first[0] == second[0] == f"mlflow.sharedViewState.{make(METRICS, GROUP, TOP1).id}"
    value = json.loads(first[1])
    assert (value["createdAt"], value["updatedAt"]) == (1, 1)
    assert decode(value["state"]) == make(METRICS, GROUP, TOP1).state


def test_state_survives_encoding():
    state = {"searchFilter": "tags.`a` = 'é'", "n": [1, None, True]}
    assert decode(encode(state)) == state


@BOTH
def test_a_run_with_many_metrics_still_fits(make):
    many = METRICS + [f"layers/layer{i % 4}.{i}.conv/bits" for i in range(300)]
    assert len(tag(make(many, GROUP, TOP1), now_ms=0)[1]) < 20_000


def test_too_much_for_a_tag_is_an_error():
    noise = {str(i): hash((i, "x")) for i in range(20_000)}
    with pytest.raises(NetzipError, match="too many metrics"):
        tag(View("x", "x", noise), now_ms=0)


def test_link_and_colour():
    assert link("3", "netzip-overview") == (
        "#/experiments/3/runs?viewStateShareKey=netzip-overview"
        "&compareRunsMode=CHART&workflowType=machine_learning"
    )
    assert re.fullmatch(r"#[0-9a-f]{6}", BASELINE_COLOUR)


class TestSearch:
    """The trials of one search."""

    METRICS = ("validation/score/ocs", "validation/accuracy/drop_points", "ratio/S", "train/loss")
    STATE = search(METRICS, "8f14e45f", ["technique/0.ptq/bits"]).state

    def test_mlflow_reads_filter_and_order(self):
        reads = pytest.importorskip("mlflow.utils.search_utils").SearchUtils
        clauses = reads.parse_search_filter(self.STATE["searchFilter"])
        assert [(c["type"], c["key"], c["comparator"], c["value"]) for c in clauses] == [
            ("tag", "netzip.kind", "=", "trial"),
            ("tag", "netzip.parent", "=", "8f14e45f"),
        ]
        way = "ASC" if self.STATE["orderByAsc"] else "DESC"
        ordered = reads.parse_order_by_for_search_runs(f"{self.STATE['orderByKey']} {way}")
        assert ordered == ("metric", "validation/score/ocs", False)

    def test_columns(self):
        assert [c.split("`")[1] for c in self.STATE["selectedColumns"]] == [
            "netzip.chain", "netzip.trial", "validation/score/ocs",
            "validation/accuracy/drop_points", "validation/score/feasible", "ratio/S", "ratio/C",
            "size/disk_bytes", "netzip.reason",
        ]  # fmt: skip

    def test_charts(self):
        shown = [c for c in self.STATE["compareRunCharts"] if not c.get("deleted")]
        assert [c["type"] for c in shown] == ["BAR", "SCATTER", "SCATTER", "SCATTER", "PARALLEL"]
        assert shown[0]["metricKey"] == "validation/score/ocs"
        assert shown[-1]["selectedParams"] == ["technique/0.ptq/bits"]
        assert shown[-1]["selectedMetrics"][-1] == "validation/score/ocs"
        ids = [c["uuid"] for c in self.STATE["compareRunCharts"]]
        assert len(ids) == len(set(ids))
        homes = {section["uuid"] for section in self.STATE["compareRunSections"]}
        assert {c["metricSectionId"] for c in self.STATE["compareRunCharts"]} == homes

    def test_the_page_adds_no_chart_of_its_own(self):
        keys = [c["metricKey"] for c in self.STATE["compareRunCharts"] if "metricKey" in c]
        assert sorted(keys) == sorted(self.METRICS)

    def test_its_name_and_id(self):
        view = search(self.METRICS, "x", [])
        key, value = tag(view, now_ms=3)
        assert key == "mlflow.sharedViewState.netzip-search"
        assert json.loads(value)["name"] == "Search"
