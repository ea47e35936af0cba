from __future__ import annotations

import pytest

from netzip_mlflow.report.dimension import Dimension, shorten


def test_a_range_from_end_to_end():
    d = Dimension.of("x", {"low": 2, "high": 6, "log": False})
    assert [d.place(v) for v in (2, 3, 6)] == [0, 0.25, 1]
    assert d.ticks() == [(0.0, "2"), (0.5, "4"), (1.0, "6")]


def test_a_logarithmic_range_by_its_exponents():
    d = Dimension.of("lr", {"low": 0.001, "high": 0.1, "log": True})
    assert d.place(0.01) == pytest.approx(0.5)
    assert [text for _, text in d.ticks()] == ["0.001", "0.01", "0.1"]


def test_choices_side_by_side_and_true_is_not_one():
    d = Dimension.of("bits", [1, True, None, "ternary"])
    assert [d.place(v) for v in (1, True, None, "ternary")] == [0.125, 0.375, 0.625, 0.875]
    assert [text for _, text in d.ticks()] == ["1", "true", "null", "ternary"]


def test_a_range_of_one_value():
    d = Dimension.of("x", {"low": 3, "high": 3})
    assert d.ticks() == [(0.5, "3")]


@pytest.mark.parametrize("width", [8, 16, 30])
def test_a_short_text_is_no_wider_than_asked(width):
    long = "place 3 (dynamic_int8, half, ptq, share_kernels_with_a_very_long_name)"
    lines = shorten(long, width, 3).split("\n")
    assert len(lines) <= 3
    assert max(map(len, lines)) <= width
    assert shorten("prune_l1+finetune", 12) == "prune_l1+\nfinetune", "broken between words"
    assert lines[-1].endswith("…") or "".join(lines).replace(" ", "") == long.replace(" ", "")
