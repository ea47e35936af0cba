"""The dictionary of metric keys describes what a real measurement holds, and nothing else."""

from __future__ import annotations

import re

import pytest

from netzip_mlflow.deployable import Deployable
from netzip_mlflow.metrics.keys import KEYS, describe
from netzip_mlflow.recipe import LatencySpec, MeasureSpec
from netzip_mlflow.stages.evaluate import evaluate
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.ptq import PTQ
from netzip_mlflow.twin import Twin

KEY = re.compile(r"[a-z]+(/[A-Za-z0-9_]+)+")
# what a frame of evaluate() cannot hold, and where it comes from
ELSEWHERE = {
    "accuracy/top5": "data of more than five classes",
    "speed/macs_thop": "logged by the stages, which have the twin",
    "fidelity/export_max_abs_diff": "logged by the stages, which exported it",
    "fidelity/confidence_change_disagreeing": "only where some answers differ",
    "ratio/E": "needs an energy meter",
    "ratio/esr": "needs an energy meter",
    "compress/seconds": "logged by the stages, which apply the chain",
    "validation/...": "stands for a prefix",
    "best/...": "stands for a prefix, on the parent",
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
    assert KEYS.keys() - ELSEWHERE.keys() - bare == set()
    assert ELSEWHERE.keys() & KEYS.keys() & bare <= {"fidelity/confidence_change_disagreeing"}


def test_intervals_are_described_where_there_are_some(keys: set[str]) -> None:
    bare = {k.removeprefix("validation/") for k in keys}
    for key, text in KEYS.items():
        both = {f"{key}_low", f"{key}_high"}
        assert ("_low, _high" in text) == (both <= bare), key
        assert {k for k in both if describe(k)} == (both if both <= bare else set()), key


def test_validation_holds_only_what_selects(keys: set[str]) -> None:
    rooms = {k.split("/")[1] for k in keys if k.startswith("validation/")}
    assert rooms == {"accuracy", "fidelity", "ratio", "score"}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("ratio/its_low", KEYS["ratio/its"]),
        ("validation/accuracy/drop_points_high", KEYS["accuracy/drop_points"]),
        ("speed/throughput_b32", KEYS["speed/throughput_b<N>"]),
        ("validation/score/ocs", KEYS["score/ocs"]),
        ("validation/...", None),
        ("speed/unknown", None),
        ("speed/throughput_bananas", None),
        ("size/disk_bytes_low", None),
        ("top1", None),
        ("", None),
    ],
)
def test_describe(key: str, text: str | None) -> None:
    assert describe(key) == text


def test_keys_are_what_mlflow_takes() -> None:
    assert all(re.fullmatch(r"[\w./<> -]+", key) for key in KEYS)
    assert all(text and not text.endswith(".") for text in KEYS.values())
