from __future__ import annotations

import pytest

from netzip_mlflow.metrics.metric import (
    Metric,
    big,
    data,
    milliseconds,
    percent,
    plain,
    points,
    probability,
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


def test_axis_and_title():
    metric = Metric("speed/wait_ms", "Waiting", "time that it waits", "less", "ms", interval=True)
    assert metric.title() == "Waiting (less is better)"
    assert metric.axis() == "Waiting, ms"
    assert metric.name == "wait_ms"
    assert metric.interval_keys == ("speed/wait_ms_low", "speed/wait_ms_high")


def test_a_number_in_a_key_stands_for_any():
    metric = Metric("robustness/noise_<N>", "Noise", "accuracy under noise of a severity")
    assert metric.covers("robustness/noise_3")
    assert not metric.covers("robustness/noise_")
    assert not metric.covers("robustness/noise_3_low")
