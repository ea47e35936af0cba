"""The records describe what a real measurement holds, and nothing else."""

from __future__ import annotations

import re

import pytest

from netzip_mlflow.deployable import Deployable
from netzip_mlflow.metrics.catalogue import METRICS, describe, find, listing
from netzip_mlflow.recipe import LatencySpec, MeasureSpec
from netzip_mlflow.stages.evaluate import evaluate
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.ptq import PTQ
from netzip_mlflow.twin import Twin

KEYS = {metric.key for metric in METRICS}
KEY = re.compile(r"[a-z]+(/[A-Za-z0-9_]+)+")
# what a frame of evaluate() cannot hold, and where it comes from
ELSEWHERE = {
    "accuracy/top5": "data of more than five classes",
    "speed/macs_thop": "logged by the stages, which have the twin",
    "fidelity/export_max_abs_diff": "logged by the stages, which exported it",
    "fidelity/confidence_change_disagreeing": "only where some answers differ",
    "accuracy/map50": "read from a published table",
    "accuracy/map50_95": "read from a published table",
    "energy/joules": "needs an energy meter",
    "energy/watts": "needs an energy meter",
    "ratio/E": "needs an energy meter",
    "ratio/esr": "needs an energy meter",
    "compress/seconds": "logged by the stages, which apply the chain",
    "search/best_ocs": "logged by a search",
    "search/ended": "logged by a search",
    "search/failed": "logged by a search",
    "search/feasible": "logged by a search",
    "search/infeasible": "logged by a search",
    "search/same": "logged by a search",
    "search/seconds": "logged by a search",
    "search/skipped": "logged by a search",
    "search/stopped": "logged by a search",
    "training/loss": "logged while training",
    "training/validation": "logged while training",
}


@pytest.fixture(scope="module")
def keys(twin: Twin, task: Classification, context: Context, baseline: Deployable) -> set[str]:
    """Every metric key of a real frame: a baseline and an int8 candidate."""
    frame = evaluate(
        {"baseline": baseline, "int8": PTQ().apply(twin, context)},
        task,
        measure=MeasureSpec(latency=LatencySpec(max_seconds=0.5, min_rounds=5), throughput=(1, 8)),
    )
    return {c for c in frame.columns if KEY.fullmatch(c)}


def test_every_key_of_a_frame_is_described(keys: set[str]) -> None:
    assert len(keys) > 60
    assert sorted(k for k in keys if describe(k) is None) == []


def test_every_described_key_occurs(keys: set[str]) -> None:
    bare = {k.removeprefix("validation/") for k in keys}
    bare = {re.sub(r"throughput_b\d+", "throughput_b<N>", k) for k in bare}
    assert KEYS - ELSEWHERE.keys() - bare == set()
    assert ELSEWHERE.keys() & KEYS & bare <= {"fidelity/confidence_change_disagreeing"}


def test_intervals_are_described_where_there_are_some(keys: set[str]) -> None:
    bare = {k.removeprefix("validation/") for k in keys}
    for metric in METRICS:
        both = {f"{metric.key}_low", f"{metric.key}_high"}
        assert metric.interval == (both <= bare), metric.key
        assert ("_low, _high" in metric.describe()) == metric.interval
        assert {k for k in both if describe(k)} == set(metric.interval_keys), metric.key


def test_validation_holds_only_what_selects(keys: set[str]) -> None:
    rooms = {k.split("/")[1] for k in keys if k.startswith("validation/")}
    assert rooms == {"accuracy", "fidelity", "ratio", "score"}


@pytest.mark.parametrize(
    ("key", "record"),
    [
        ("ratio/its_low", "ratio/its"),
        ("validation/accuracy/drop_points_high", "accuracy/drop_points"),
        ("speed/throughput_b32", "speed/throughput_b<N>"),
        ("validation/score/ocs", "score/ocs"),
        ("best/ratio/C", "ratio/C"),
    ],
)
def test_a_key_has_its_metric_s_record(key: str, record: str) -> None:
    assert find(key).key == record
    assert describe(key) == find(key).describe()


@pytest.mark.parametrize(
    "key",
    [
        "validation/...",
        "speed/unknown",
        "speed/throughput_bananas",
        "size/disk_bytes_low",
        "top1",
        "",
    ],
)
def test_a_key_without_a_record_is_its_own_label(key: str) -> None:
    assert describe(key) is None
    assert find(key).title() == key


def test_a_figure_is_described_once() -> None:
    assert len(KEYS) == len(METRICS)
    columns = [metric.column for metric in METRICS if metric.column]
    assert len(columns) == len(set(columns))


def test_keys_are_what_mlflow_takes() -> None:
    assert all(re.fullmatch(r"[\w./<> -]+", key) for key in listing())
    assert all(text and not text.endswith(".") for text in listing().values())
    assert all(metric.better in ("more", "less", "") for metric in METRICS)
