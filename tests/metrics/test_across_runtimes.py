"""The same files in several runtimes: figures of a user's own and of the reference, beside ours."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from netzip_mlflow import runtimes
from netzip_mlflow.metrics import across_runtimes, latency
from netzip_mlflow.recipe import MeasureSpec
from netzip_mlflow.statistics import Interval

OWN = "own_runtimes:"


def spec(*names: str) -> MeasureSpec:
    short = {"max_seconds": 0.1, "min_rounds": 5}
    return MeasureSpec.model_validate({"latency": short, "runtimes": list(names)})


@pytest.fixture
def loaded(forms):
    """The float file as the baseline, the integer one beside it."""
    models = []
    for name, form in (("baseline", "float"), ("int8", "qdq")):
        session = runtimes.find().load(forms[form])
        facts = {"name": name, "path": forms[form], "session": session, "adapter": None}
        models.append(SimpleNamespace(shape=session.shape, **facts))
    return models


def test_one_runtime_is_not_compared(loaded):
    assert across_runtimes.rows(loaded, spec("onnxruntime"), 0) == []


def test_the_reference_is_compared_and_not_timed(loaded):
    rows = across_runtimes.rows(loaded, spec("onnxruntime", "reference"), 0)
    assert [(row.model, row.runtime) for row in rows] == [
        ("baseline", "reference"),
        ("int8", "reference"),
    ]
    for row in rows:
        assert row.latency_ms is row.ratio_its is row.ratio_across is None
        assert "not timed" in row.absent
    assert 0 <= rows[0].max_abs_diff < 1e-4


def test_answers_that_differ_show(loaded):
    rows = across_runtimes.rows(loaded, spec("onnxruntime", OWN + "Shifted"), 0)
    (shifted,) = (r for r in rows if (r.model, r.runtime) == ("baseline", OWN + "Shifted"))
    assert shifted.max_abs_diff == pytest.approx(0.25, abs=1e-4)
    assert shifted.version == "7"


def test_what_one_runtime_cannot_run_costs_itself(loaded):
    rows = across_runtimes.rows(loaded, spec("onnxruntime", OWN + "Broken", "reference"), 0)
    by = {(row.model, row.runtime): row for row in rows}
    assert "KeyError: 'the lamp is out'" in by["int8", OWN + "Broken"].absent
    assert by["int8", OWN + "Broken"].max_abs_diff is None
    assert by["int8", "reference"].max_abs_diff is not None


def test_ratios_say_what_they_compare(loaded, monkeypatch):
    """Times by runtime and model, ms; each round doubles all, which no ratio shows."""
    own = OWN + "Plain"
    times = {
        "baseline in onnxruntime": 2.0,
        "int8 in onnxruntime": 1.0,
        f"baseline in {own}": 12.0,
        f"int8 in {own}": 3.0,
    }

    def interleave(calls, *, baseline, again, **_):
        assert set(calls) == set(times)
        for call in (*calls.values(), again):
            call()
        timings = {}
        for key, ms in times.items():
            value = Interval(ms, ms, ms)
            rounds = ms * np.array([1.0, 2, 4, 8, 16])
            timings[key] = latency.Timing(value, ms, value, 0.0, rounds, rounds)
        return latency.Latency(baseline, timings, 5, Interval(1, 1, 1), True, ("x",), "rounds")

    monkeypatch.setattr(latency, "interleave", interleave)
    rows = across_runtimes.rows(loaded, spec("onnxruntime", own), 0)
    shown = {(r.model, r.runtime): (r.ratio_its.value, r.ratio_across.value) for r in rows}
    assert shown == {
        ("baseline", "onnxruntime"): (1, 1),
        ("int8", "onnxruntime"): (2, 1),
        ("baseline", own): (1, pytest.approx(1 / 6)),
        ("int8", own): (4, pytest.approx(1 / 3)),
    }
    assert all(row.noisy for row in rows)


def test_a_row_has_a_column_for_every_figure(loaded):
    rows = across_runtimes.rows(loaded[:1], spec("onnxruntime", OWN + "Plain"), 0)
    for row in rows:
        cells = row.cells()
        assert [*cells][:4] == ["model", "runtime", "version", "max_abs_diff"]
        for key in ("latency_ms", "ratio_its", "ratio_across"):
            assert cells[f"{key}_low"] <= cells[key] <= cells[f"{key}_high"]
        assert cells["absent"] == ""
    assert math.isclose(rows[0].ratio_its.value, 1)
