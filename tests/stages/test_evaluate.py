"""Evaluating in Python, without a store: the same figures, in a frame."""

from __future__ import annotations

import pytest

from netzip_mlflow import MeasureSpec, evaluate, visualise
from netzip_mlflow.errors import InputError
from netzip_mlflow.metrics.catalogue import describe
from netzip_mlflow.techniques.ptq import PTQ

SPEC = MeasureSpec.model_validate(
    {"latency": {"max_seconds": 0.5, "min_rounds": 5}, "throughput": []}
)


@pytest.fixture(scope="module")
def frame(baseline, twin, context, task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nowhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        int8 = PTQ().apply(twin, context)
        found = evaluate({"baseline": baseline, "int8": int8}, task, measure=SPEC)
        assert list(folder.iterdir()) == [], "no store, no files"
    return found.set_index("name", drop=False)


def test_a_row_for_each_the_baseline_first(frame):
    assert list(frame["name"]) == ["baseline", "int8"]
    assert list(frame["kind"]) == ["baseline", "candidate"]
    assert list(frame["chain"]) == ["fp32", "ptq(int8)"]


def test_its_columns_are_the_known_keys(frame):
    keys = [c for c in frame.columns if "/" in c and not c.startswith("absent ")]
    assert len(keys) > 40
    assert [key for key in keys if describe(key) is None] == []


def test_ocs_follows_from_the_ratios(frame):
    P, S, C = (frame.loc["int8", f"ratio/{term}"] for term in "PSC")
    ocs = P * ((P - 1) + (S - 1) + (C - 1))
    assert frame.loc["int8", "score/ocs"] == pytest.approx(ocs, abs=1e-9)
    assert frame.loc["baseline", "score/ocs"] == 0.0


def test_the_pictures_are_saved_where_asked(frame, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    from netzip_mlflow.report import plots

    monkeypatch.setattr(plots, "figures", lambda _frame, best: {str(best): Figure()})
    figures = visualise(frame, tmp_path / "pictures")
    assert list(figures) == ["int8"], "the only candidate is the best one"
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["int8.png"]


def test_nothing_to_evaluate(task):
    with pytest.raises(InputError, match="the first one is the baseline"):
        evaluate({}, task)
