"""A row of a comparison, as a frame holds it and as it is read back."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from netzip_mlflow.metrics.row import Row, join_flags, split_facts, split_flags

ROW = Row(
    "int8",
    "candidate",
    "ptq(int8)",
    "FINISHED",
    "good",
    ("smaller", "latency: faster"),
    ("noisy", "macs-differ"),
    run_id="7",
    accuracy="accuracy/top1",
    metrics={"accuracy/top1": 0.5, "speed/layers": 19.0},
    facts={"casts": 0, "float_layers": ["conv1", "linear"], "energy": "none"},
    absent={"size/ram_bytes": "killed"},
)


def test_a_row_outlives_a_frame():
    frame = pd.DataFrame([ROW.record(), {"name": "svd", "status": "FAILED", "error": "rank 0"}])
    rows = [Row.of(record) for record in frame.to_dict("records")]
    assert rows == [ROW, Row("svd", status="FAILED", error="rank 0")]


@pytest.mark.parametrize("value", [math.nan, None, "", "x"])
def test_what_is_not_a_number_is_not_a_metric(value):
    assert Row.of({"name": "a", "size/disk_bytes": value}).metrics == {}


def test_a_count_may_be_a_string():
    assert Row.of({"name": "a", "casts": "42"}).facts == {"casts": 42}


def test_the_tag_of_earlier_versions_is_read():
    facts, absent = split_facts({"casts": 2, "absent speed/throughput_b4": "fixed", "other": 1})
    assert facts == {"casts": 2}
    assert absent == {"speed/throughput_b4": "fixed"}


def test_flags_are_split_as_they_were_joined():
    assert join_flags(["noisy", "1,5 over\nthe limit"]) == "noisy,1;5 over the limit"
    assert split_flags("noisy,macs-differ") == ("noisy", "macs-differ")
    assert split_flags("") == ()
