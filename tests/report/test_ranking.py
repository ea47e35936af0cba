from __future__ import annotations

import pandas as pd
import pytest

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics.row import Row
from netzip_mlflow.report.ranking import accuracy_key, arrange, standings


def names(rows):
    return [row.name for row in rows]


def test_order(frame):
    parts = arrange(frame)
    assert parts.baseline.name == "baseline"
    assert names(parts.feasible) == ["four_bit", "int8", "half"]
    assert names(parts.infeasible) == ["half_macs", "dead"]
    assert names(parts.failed) == ["svd"]


def test_order_does_not_depend_on_the_frames(frame):
    shuffled = arrange(frame.sample(frac=1, random_state=3))
    assert names(shuffled.measured) == names(arrange(frame).measured)


def test_selection_reads_validation_not_test(frame):
    frame.loc[frame["name"] == "int8", "score/ocs"] = 99.0
    frame.loc[frame["name"] == "int8", "score/feasible"] = 0.0
    assert names(arrange(frame).feasible) == ["four_bit", "int8", "half"]


def test_without_validation_figures_the_plain_ones_count():
    frame = pd.DataFrame({"name": ["fp32", "a", "b"], "score/ocs": [0.0, 1.0, 2.0]})
    parts = arrange(frame)
    assert (parts.baseline.name, names(parts.feasible)) == ("fp32", ["b", "a"])


def test_standings(frame):
    kinds = standings(arrange(frame), "four_bit")
    assert list(kinds.items()) == [
        ("baseline", "baseline"),
        ("four_bit", "best"),
        ("int8", "feasible"),
        ("half", "feasible"),
        ("half_macs", "infeasible"),
        ("dead", "infeasible"),
    ]


@pytest.mark.parametrize("key", ["baseline", "basis", "terms", "fingerprint"])
def test_groups_are_never_ranked_together(frame, key):
    frame[key] = ["a"] * 6 + ["b"]
    with pytest.raises(NetzipError, match=f"different {key} are never ranked together: a, b"):
        arrange(frame)
    frame[key] = ["a"] * 6 + [None]
    assert len(arrange(frame).measured) == 6


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (pd.DataFrame({"name": []}), "needs rows"),
        (pd.DataFrame({"accuracy/top1": [1.0]}), "each with a name"),
        (pd.DataFrame({"name": ["a", "b", "b"]}), "two rows are named 'b'"),
        (pd.DataFrame({"name": ["a", "b"], "status": ["FAILED", ""]}), "baseline 'a' failed"),
    ],
)
def test_frames_that_cannot_be_arranged(frame, told):
    with pytest.raises(NetzipError, match=told):
        arrange(frame)


def test_accuracy_key():
    def row(accuracy="", **metrics):
        metrics = {f"accuracy/{name}": value for name, value in metrics.items()}
        return Row("a", accuracy=accuracy, metrics=metrics)

    assert accuracy_key([row(map50=0.5)]) == "accuracy/map50"
    assert accuracy_key([row(map50=0.5, map50_95=0.3)]) == "accuracy/map50_95"
    assert accuracy_key([row("accuracy/f1_macro", top1=0.5, f1_macro=0.5)]) == "accuracy/f1_macro"
    with pytest.raises(NetzipError, match="no accuracy"):
        accuracy_key([row(ece=0.1)])
