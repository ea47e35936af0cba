from __future__ import annotations

import pytest

from netzip_mlflow.metrics.row import Row
from netzip_mlflow.report.explain import explain


def ratio(value, **more):
    low, high = value * 0.98, value * 1.02
    record = {"name": "a", "ratio/its": value, "ratio/its_low": low, "ratio/its_high": high}
    return Row.of(record | more)


def test_faster_says_what_the_runtime_executes():
    row = ratio(2.24, **{"speed/layers": 19, "speed/int8_layers": 19})
    assert explain(row) == [
        "Faster: latency ratio 2.24 [2.20, 2.28].",
        "The runtime executes all 19 layers in int8.",
    ]


def test_some_layers_in_float_are_named():
    row = ratio(1.5, float_layers="conv1\nlinear", **{"speed/layers": 19, "speed/int8_layers": 17})
    assert explain(row)[1] == (
        "The runtime executes 17 of 19 layers in int8; in float: conv1, linear."
    )


def test_dynamic_quantisation_explains_a_slower_model():
    row = ratio(0.412, dynamic_nodes="20", **{"speed/layers": 20, "speed/int8_layers": 20})
    told = explain(row)
    assert told[0] == (
        "Slower: it takes 2.43 times the baseline's latency (ratio 0.41 [0.40, 0.42])."
    )
    assert told[2].startswith("20 activations are quantised anew at every call")


def test_casts_explain_half_precision():
    row = ratio(1.0, casts=1, **{"speed/layers": 19, "speed/int8_layers": 0})
    told = explain(row)
    assert told[0] == "No measurable change of latency: ratio 1.00 [0.98, 1.02]."
    assert told[1] == "The runtime executes none of the 19 layers in int8, all in float."
    assert told[2].startswith("1 cast is inserted by the runtime")


def test_zeros_explain_unstructured_pruning():
    told = explain(ratio(0.998, **{"size/sparsity": 0.3, "ratio/S": 1.0}))
    assert told[1].startswith("30 % of the weights are zero")
    assert told[1].endswith("operations and speed do not change."), "the file may be smaller"
    assert len(explain(ratio(0.998, **{"size/sparsity": 0.3, "ratio/S": 1.4}))) == 1


@pytest.mark.parametrize("value", [1.3, 0.7])
def test_an_interval_that_contains_one_is_no_change_whatever_the_median(value):
    row = ratio(value, **{"ratio/its_low": 0.6, "ratio/its_high": 1.4})
    assert explain(row)[0].startswith("No measurable change")


def test_without_interval_nothing_is_judged():
    assert explain(Row("a", metrics={"ratio/its": 2.0})) == [
        "Latency ratio 2.00; without an interval it is not judged."
    ]


def test_nothing_to_say():
    assert explain(Row("a")) == []
    assert explain(ratio(1.0, kind="baseline")) == []
