from __future__ import annotations

from netzip_mlflow.metrics.row import Row
from netzip_mlflow.report.cells import interval


def row(key, value, low, high):
    return Row("a", metrics={key: value, f"{key}_low": low, f"{key}_high": high})


def test_interval():
    assert interval(row("ratio/its", 0.444, 0.43, 0.4512), "ratio/its") == "0.44 [0.43, 0.45]"
    assert interval(Row("a", metrics={"ratio/its": 0.444}), "ratio/its") == "0.44"
    assert interval(Row("a"), "ratio/its") == ""


def test_a_shared_unit_stands_once():
    key = "size/disk_bytes"
    assert interval(row(key, 2000.0, 1500.0, 3000.0), key) == "2.00 [1.50, 3.00] kB"
    assert interval(row(key, 2000.0, 900.0, 3000.0), key) == "2.00 kB [900 B, 3.00 kB]"
