"""What a file tells, and that the report hears of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from netzip_mlflow.metrics import Conditions, Model
from netzip_mlflow.metrics.family import Facts
from netzip_mlflow.metrics.file import MOST_NAMES, File
from netzip_mlflow.metrics.row import Row
from netzip_mlflow.metrics.size import sizes
from netzip_mlflow.recipe import MeasureSpec
from netzip_mlflow.report.explain import explain
from netzip_mlflow.runtimes import Executed

HERE = Conditions(MeasureSpec(), 0, lambda _what, _done: None)


def executed(int8: int, names: list[str]) -> SimpleNamespace:
    """A runtime that executes so many layers in int8, and those of these names in float."""
    counts = Executed(int8 + len(names), int8, tuple(names), 3, 2, 0)
    return SimpleNamespace(executed=lambda _path: counts)


def figures(path: Path, runtime: SimpleNamespace):
    (said,) = File().measure([Model("a", path, runtime, None, (3, 8, 8))], HERE)
    return said


def test_sizes_and_operations_are_those_of_the_file(forms) -> None:
    said = figures(forms["float"], executed(0, ["conv"]))
    assert {
        f"size/{k}": v for k, v in sizes(forms["float"]).items()
    }.items() <= said.metrics.items()
    assert said.metrics["speed/ops"] == 2 * said.metrics["speed/macs"]
    assert said.metrics["speed/mean_bits"] == 32
    assert said.facts == Facts(casts=3, conversions=2, dynamic_nodes=0), "all float: no names"


def test_layers_left_in_float_are_named_in_the_report(forms) -> None:
    said = figures(forms["float"], executed(17, ["conv1", "linear"]))
    times = {"ratio/its": 1.5, "ratio/its_low": 1.4, "ratio/its_high": 1.6}
    row = Row("a", metrics={**said.metrics, **times}, facts=said.facts)
    (record,) = pd.DataFrame([row.record()]).to_dict("records")
    assert "The runtime executes 17 of 19 layers in int8; in float: conv1, linear." in explain(
        Row.of(record)
    )


@pytest.mark.parametrize("count", [MOST_NAMES, MOST_NAMES + 30])
def test_a_tag_has_room_for_a_few_names(forms, count) -> None:
    names = [f"layer{i}" for i in range(count)]
    said = figures(forms["float"], executed(1, names))
    assert said.facts["float_layers"] == names[:MOST_NAMES]
    assert said.metrics["speed/layers"] == count + 1


def test_a_runtime_that_does_not_say_what_it_executes(forms) -> None:
    said = figures(forms["float"], SimpleNamespace(executed=lambda _path: None))
    assert "speed/layers" not in said.metrics
    assert set(said.absent) == {"speed/layers", "speed/int8_layers"}
    assert said.metrics["speed/macs"] > 0
