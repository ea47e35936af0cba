from __future__ import annotations

import io

import pandas as pd
from rich.console import Console

from netzip_mlflow.report.table import comparison, terminal
from netzip_mlflow.scoring import Choice


def printed(frame, choice, width=140):
    stream = io.StringIO()
    Console(file=stream, width=width).print(terminal(frame, choice))
    return stream.getvalue().splitlines()


def test_comparison_keeps_every_figure_and_row(frame):
    table = comparison(frame)
    assert list(table["name"]) == [
        "baseline", "four_bit", "int8", "half", "half_macs", "dead", "svd",
    ]  # fmt: skip
    merged = table.set_index("name")["accuracy/top1"].sort_index()
    pd.testing.assert_series_equal(merged, frame.set_index("name")["accuracy/top1"].sort_index())
    assert set(table.columns) == set(frame.columns)


def test_comparison_orders_columns_and_drops_empty_ones(frame):
    frame["flags"] = None
    columns = list(comparison(frame[sorted(frame.columns)]).columns)
    assert columns[:6] == ["name", "kind", "chain", "status", "verdict", "reasons"]
    assert "flags" not in columns
    assert columns.index("score/ocs") < columns.index("ratio/C") < columns.index("accuracy/top1")
    assert columns.index("size/disk_bytes") < columns.index("validation/score/ocs")
    assert columns == list(comparison(frame).columns)


def test_terminal(frame, choice):
    lines = printed(frame, choice)
    header = next(line for line in lines if "Model" in line)
    assert header.split() == [
        "Model", "Top-1", "Drop,", "pts", "Latency", "Ratio", "Disk", "S", "C", "OCS", "Verdict",
    ]  # fmt: skip
    rows = [line for line in lines if "%" in line]
    assert [r.split("  ")[0].strip() for r in rows] == [
        "baseline", "★ four_bit", "int8", "half", "✗ half_macs", "✗ dead",
    ]  # fmt: skip
    assert "2.24 [2.19, 2.28]" in rows[2]
    assert "0.15 [−0.15, 0.45]" in rows[2]
    assert "276.6 kB" in rows[2]
    told = "\n".join(lines)
    assert "★ best: four_bit (highest OCS on validation (9.560) of 3 feasible" in told
    assert "✗ outside the constraint on validation, least first" in told
    assert "! svd failed: rank 0 at layer1" in told


def test_terminal_says_when_the_best_fails_the_constraint_on_test(frame, choice):
    assert "on test" not in "\n".join(printed(frame, choice))
    frame.loc[frame["name"] == "four_bit", ["score/feasible", "accuracy/drop_points"]] = [0.0, 1.2]
    assert "on test four_bit is outside the constraint: drop 1.20" in "\n".join(
        printed(frame, choice)
    )


def test_terminal_without_a_best(frame):
    lines = printed(frame, Choice(None, "half_macs", "none keeps the limit"))
    assert not any("★" in line for line in lines)
    assert any("no best: none keeps the limit" in line for line in lines)


def test_terminal_of_a_scored_table_leaves_out_what_is_not_there():
    frame = pd.DataFrame(
        {"name": ["fp32", "[b]int8"], "accuracy/top1": [0.7, 0.69], "score/ocs": [0.0, 5.0]}
    )
    lines = printed(frame, Choice(None, None, "not selected"))
    assert next(line for line in lines if "Model" in line).split() == ["Model", "Top-1", "OCS"]
    assert any("[b]int8" in line for line in lines)


def test_terminal_fits_100_columns(frame, choice):
    lines = printed(frame, choice, width=100)
    assert any(line.rstrip().endswith("Verdict") for line in lines)
    assert any("good" in line for line in lines)
