"""Runtimes of a recipe: the first scores, the others are in `runtimes.csv`; a user's own is one."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest

from netzip_mlflow.cli.output import measure_text
from netzip_mlflow.metrics import machine
from netzip_mlflow.metrics.across_runtimes import Row
from netzip_mlflow.runtimes import find
from netzip_mlflow.stages.measure import measure, spec_of
from netzip_mlflow.statistics import Interval

PLAIN, SHIFTED = "own_runtimes:Plain", "own_runtimes:Shifted"


def read(file):
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def several(compressed, run_compress):
    """One candidate in three runtimes, of which ONNX Runtime scores."""
    names = f"measure.runtimes=[onnxruntime, reference, '{SHIFTED}']"
    return run_compress(compressed.folder, names, only=("int8",), pictures=False)


class TestCompress:
    def test_each_model_has_a_row_for_each_runtime(self, several):
        rows = read(several.fetch(several.outcome.run_id, "runtimes.csv"))
        assert {(row["model"], row["runtime"]) for row in rows} == {
            (model, runtime)
            for model in ("baseline", "int8")
            for runtime in ("onnxruntime", "reference", SHIFTED)
        }
        by = {(row["model"], row["runtime"]): row for row in rows}
        assert float(by["baseline", "reference"]["max_abs_diff"]) < 1e-4
        assert float(by["baseline", SHIFTED]["max_abs_diff"]) == pytest.approx(0.25, abs=1e-4)
        assert float(by["baseline", SHIFTED]["ratio_its"]) == 1
        assert float(by["int8", SHIFTED]["latency_ms"]) > 0
        assert by["int8", "reference"]["latency_ms"] == ""
        assert "not timed" in by["int8", "reference"]["absent"]

    def test_a_tag_says_which_runtime_scores(self, several, compressed):
        tag = several.parent.data.tags["netzip.runtimes"]
        assert tag == f"onnxruntime (scores), reference, {SHIFTED} (runtimes.csv)"
        assert "netzip.runtimes" not in compressed.parent.data.tags

    def test_what_scores_is_as_without_them(self, several, compressed):
        for name in ("baseline", "int8"):
            before, after = compressed.runs[name].data.metrics, several.runs[name].data.metrics
            trained = {"training/loss", "training/validation"}  # now taken from the store
            assert set(before) - trained == set(after)
            for key in ("accuracy/top1", "speed/chats", "size/disk_bytes", "speed/int8_layers"):
                assert before[key] == after[key]
        tags = [run.parent.data.tags["netzip.fingerprint"] for run in (several, compressed)]
        assert tags[0] == tags[1]


def test_what_measure_prints_of_them():
    """Figures with intervals, a gap where one is absent, and the reason below."""
    ms = Interval(1.5, 1.25, 1.75)
    rows = [
        Row("int8", "theirs", "7", 0.25, ms, Interval(2, 2, 2), Interval(3, 3, 3), False, ""),
        Row("int8", "reference", "1", None, None, None, None, False, "the lamp is out"),
    ]
    each = SimpleNamespace(metrics={}, flags=[], fault="", basis=None, elsewhere=rows)
    text = measure_text([(SimpleNamespace(name="int8"), each)])
    (line,) = (line for line in text.splitlines() if "theirs" in line)
    assert line.split() == [
        *("int8", "theirs", "2.5e-01", "1.500", "[1.250,", "1.750]"),
        *("2.000", "[2.000,", "2.000]", "3.000", "[3.000,", "3.000]"),
    ]
    assert "int8 in reference: the lamp is out" in text
    each.elsewhere = []
    assert "theirs" not in measure_text([(SimpleNamespace(name="int8"), each)])


def test_a_runtime_of_a_users_own_scores(compressed, workplace, user_code, monkeypatch):
    """Accuracy is that of ONNX Runtime, as the arithmetic is; what it does not tell is absent."""
    monkeypatch.chdir(user_code)  # where a fresh process finds it too
    files = [str(compressed.model(name) / "model.onnx") for name in ("baseline", "int8")]
    spec = spec_of(compressed.recipe, None, [PLAIN])
    rows = measure([files[1]], workplace, baseline=files[0], recipe=compressed.recipe, spec=spec)
    for (subject, each), name in zip(rows, ("baseline", "int8"), strict=True):
        logged = compressed.runs[name].data.metrics
        assert each.fault == ""
        assert each.metrics["accuracy/top1"] == pytest.approx(logged["accuracy/top1"], abs=0.01)
        assert each.metrics["size/disk_bytes"] == logged["size/disk_bytes"]
        for key in ("speed/latency_ms", "ratio/its", "size/load_ms", "size/ram_bytes", "ratio/C"):
            assert each.metrics[key] > 0, key
        for key in ("speed/layers", "speed/int8_layers"):
            assert key not in each.metrics
            assert "does not say" in each.absent[key]
        assert each.model.session.describe()["runtime"] == "plain", subject
    assert (
        rows[0][1].metrics["accuracy/top1"]
        == compressed.runs["baseline"].data.metrics["accuracy/top1"]
    )
    ours = find().load(files[0]).describe()
    digests = [
        machine.digest(machine.fingerprint(each))
        for each in (ours, rows[0][1].model.session.describe())
    ]
    assert digests[0] != digests[1], "figures of two runtimes never share a ratio"
