from __future__ import annotations

import pytest

from netzip_mlflow.report.quantities import (
    QUANTITIES,
    big,
    data,
    interval,
    milliseconds,
    percent,
    plain,
    points,
    probability,
    quantity,
    times,
)


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (plain, 0.77, "0.770"),
        (plain, 12.34, "12.3"),
        (plain, 99.96, "100"),
        (plain, 123.4, "123"),
        (plain, 54321.0, "54,321"),
        (plain, 0.0, "0"),
        (times, -0.001, "0.00"),
        (times, -0.21, "−0.21"),
        (points, 1.09, "1.09"),
        (points, -0.05, "−0.05"),
        (percent, 0.8805, "88.05 %"),
        (data, 999.0, "999 B"),
        (data, 276_584.0, "276.6 kB"),
        (data, 1_086_712.0, "1.09 MB"),
        (data, 2.5e9, "2.50 GB"),
        (big, 40_551_040.0, "40.6 M"),
        (big, 2.5952e9, "2.6 G"),
        (big, 12.0, "12"),
        (probability, 1e-47, "< 0.001"),
        (probability, 0.0131, "0.013"),
        (milliseconds, 0.7572, "0.757 ms"),
    ],
)
def test_numbers_as_text(show, value, text):
    assert show(value) == text


def test_interval():
    row = {"ratio/its": 0.444, "ratio/its_low": 0.43, "ratio/its_high": 0.4512}
    assert interval(row, "ratio/its") == "0.44 [0.43, 0.45]"
    assert interval({"ratio/its": 0.444}, "ratio/its") == "0.44"
    assert interval({}, "ratio/its") == ""


def test_a_shared_unit_stands_once():
    row = {"size/disk_bytes": 2000.0, "size/disk_bytes_low": 1500.0, "size/disk_bytes_high": 3000.0}
    assert interval(row, "size/disk_bytes") == "2.00 [1.50, 3.00] kB"
    row["size/disk_bytes_low"] = 900.0
    assert interval(row, "size/disk_bytes") == "2.00 kB [900 B, 3.00 kB]"


def test_unknown_metrics_keep_their_key():
    assert quantity("robustness/noise").title() == "robustness/noise"
    assert quantity("speed/latency_ms").title() == "Latency of one sample (less is better)"
    assert quantity("speed/latency_ms").axis() == "Latency of one sample, ms"


def test_every_quantity_stands_under_its_own_key():
    assert all(key == found.key for key, found in QUANTITIES.items())
    assert {q.better for q in QUANTITIES.values()} == {"more", "less", ""}
