"""`netzip measure` and `netzip export`: what they refuse, and what they leave."""

from __future__ import annotations

import shutil

import pytest


class TestMeasureAndExport:
    @pytest.fixture
    def refused(self, netzip, store, place):
        def run(*arguments: object) -> str:
            ended = netzip(*arguments)
            assert (ended.status, ended.out) == (2, "")
            assert store.all_runs() == []
            return ended.err

        return run

    @pytest.fixture(autouse=True)
    def files(self, place, baseline) -> None:
        """A good file and a corrupt one."""
        baseline.save(place / "good")
        (place / "corrupt.onnx").write_bytes(b"\x08\x07 this was a model once")

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ([], "measure: no model given"),
            (["corrupt.onnx", "--baseline", "good"], "corrupt.onnx"),
            (["good", "--baseline", "corrupt.onnx"], "corrupt.onnx"),
            (["corrupt.onnx", "--baseline", "good", "--no-log"], "corrupt.onnx"),
            (["none.onnx", "--baseline", "good"], "none.onnx: no such ONNX file"),
            (["good"], "--baseline"),
            (["good", "--no-log"], "--baseline"),
            (["runs:/" + "0" * 32], "no such run"),
            (["good", "--baseline", "good", "--layout", "hwcn"], "layout"),
            (["good", "--baseline", "good", "--mean", "a,b"], "--mean: 'a,b'"),
            (["good", "--baseline", "good", "--std", "0"], "std"),
            (["good", "--baseline", "good", "--scale", "0"], "scale"),
            (["good", "--baseline", "good", "--runtime", "onnxrutime"], "mean 'onnxruntime'?"),
            (["good", "--baseline", "good", "--runtime", "reference"], "reference comes first"),
            (["good", "--baseline", "good", "--threads", "0"], "threads"),
            (["good", "--baseline", "good", "--recipe", "none.yaml"], "none.yaml"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_cannot_be_measured(self, refused, arguments, says):
        assert says in refused("measure", *arguments)

    def test_measure_for_machines(self, netzip, store, recipe):
        options = ("--recipe", recipe, "--baseline", "good", "--json")
        shutil.copytree("good", "twin")
        ended = netzip("measure", "--model", "good,twin,twin", *options)
        assert ended.status == 0
        rows = ended.object["models"]
        assert [row["model"] for row in rows] == ["baseline", "twin", "twin-2"]
        for row in rows:
            assert {"model", "metrics"} <= set(row)
            assert row["metrics"]["score/ocs"] == 0.0
            assert row["metrics"]["accuracy/top1"] == rows[0]["metrics"]["accuracy/top1"]
        kinds = sorted(r.data.tags["netzip.kind"] for r in store.all_runs())
        assert kinds == ["measure", "measurement", "measurement", "measurement"]

    def test_further_runtimes_stand_beside_the_one_that_scores(self, netzip):
        words = ("measure", "good", "--baseline", "good", "--no-log")
        options = ("--runtime", "onnxruntime,reference", "--json", "--quiet")
        ended = netzip(*words, *options)
        assert ended.status == 0
        for model in ended.object["models"]:
            (row,) = model["runtimes"]
            assert (row["model"], row["runtime"]) == (model["model"], "reference")
            assert row["max_abs_diff"] < 1e-3

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["good", "corrupt.onnx"], "exists and is not empty"),
            (["good", "corrupt.onnx/below"], "cannot be written"),
            (["corrupt.onnx", "out"], "corrupt.onnx"),
            (["none.onnx", "out"], "no such ONNX file"),
            (["good", "out", "--opset", "3"], "--opset: 3 cannot be had from"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_cannot_be_exported(self, refused, place, arguments, says):
        before = sorted(p.name for p in place.iterdir())
        assert says in refused("export", *arguments)
        assert sorted(p.name for p in place.iterdir()) == before

    def test_export(self, netzip, place):
        ended = netzip("export", "good", "shipped")
        assert (ended.status, ended.err) == (0, "")
        assert ended.out == "shipped: model.onnx, netzip.json, predict.py\n"
        assert {p.name for p in (place / "shipped").iterdir()} == {
            "model.onnx",
            "netzip.json",
            "predict.py",
        }
