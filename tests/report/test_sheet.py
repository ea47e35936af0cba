from __future__ import annotations

import csv
import math
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from netzip_mlflow.report.sheet import write

PAYLOADS = ("=1+1", '=HYPERLINK("http://a")', "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1")


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_cell_and_no_header_is_a_formula(tmp_path, payload):
    path = write(tmp_path / "t.csv", [{"name": payload, payload: "x"}])
    assert read(path) == [["name", f"'{payload}"], [f"'{payload}", "x"]]


@pytest.mark.parametrize(
    "value", ["cat", "a=b", "'quoted'", "", "é, ü", "two\nlines", "-1", "+2.5", "-1e-9"]
)
def test_other_text_stays_as_it_is(tmp_path, value):
    assert read(write(tmp_path / "t.csv", [{"name": value, "b": "x"}]))[1] == [value, "x"]


@pytest.mark.parametrize("value", [-1, -0.1, 1e-300, 0.1 + 0.2, np.float64(-2.5), np.int64(-3)])
def test_a_number_comes_back_exactly(tmp_path, value):
    ((cell,),) = read(write(tmp_path / "t.csv", [{"a": value}]))[1:]
    assert float(cell) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, pd.NaT, np.float64("inf")])
def test_what_is_absent_or_not_finite_is_an_empty_cell(tmp_path, value):
    assert read(write(tmp_path / "t.csv", [{"a": value, "b": 1}])) == [["a", "b"], ["", "1"]]


def test_columns_are_those_of_all_rows_or_those_that_are_given(tmp_path):
    rows = [{"b": 1}, {"a": datetime(2026, 3, 1), "b": 2}]
    assert read(write(tmp_path / "t.csv", rows)) == [
        ["b", "a"],
        ["1", ""],
        ["2", "2026-03-01 00:00:00"],
    ]
    assert read(write(tmp_path / "t.csv", rows, ["a"])) == [["a"], [""], ["2026-03-01 00:00:00"]]
    assert read(write(tmp_path / "t.csv", [])) == [[]]
