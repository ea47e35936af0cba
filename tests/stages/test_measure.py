"""Measuring models made anywhere: ours by URI, another tool's by path, in one session."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime import quantization
from sklearn.metrics import accuracy_score

from netzip_mlflow.errors import InputError
from netzip_mlflow.runtimes.adapter import Adapter
from netzip_mlflow.stages import measure as stage
from netzip_mlflow.stages.compare import compare
from netzip_mlflow.stages.measure import measure, measure_files, spec_of
from netzip_mlflow.tasks import open_task


@pytest.fixture(scope="session")
def task(compressed):
    return open_task("classification", compressed.recipe.data, compressed.recipe.seed)


@pytest.fixture(scope="session")
def foreign(compressed, task, tmp_path_factory) -> Path:
    """The baseline, quantised by ONNX Runtime's own tool without any of our code."""
    folder = tmp_path_factory.mktemp("another-tool")
    batches = task.split("calibration").batches(16)

    class Reader(quantization.CalibrationDataReader):
        def get_next(self):
            batch = next(batches, None)
            return None if batch is None else {"images": batch[0]}

    source = compressed.model("baseline") / "model.onnx"
    quantization.quant_pre_process(source, folder / "pre.onnx", skip_symbolic_shape=True)
    quantization.quantize_static(
        folder / "pre.onnx", folder / "theirs.onnx", Reader(), per_channel=True
    )
    return folder / "theirs.onnx"


@pytest.fixture(scope="session")
def pixels(compressed, tmp_path_factory) -> Path:
    """The baseline as another tool might store it: pixels from 0 to 255, channels last."""
    model = onnx.load(compressed.model("baseline") / "model.onnx")
    first = onnx.helper.make_tensor_value_info(
        "pixels", onnx.TensorProto.FLOAT, ["batch", 32, 32, 1]
    )
    nodes = [
        onnx.helper.make_node("Transpose", ["pixels"], ["upright"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Div", ["upright", "most"], ["images"]),
        *model.graph.node,
    ]
    most = onnx.numpy_helper.from_array(np.array(255, np.float32), "most")
    graph = onnx.helper.make_graph(
        nodes, "pixels", [first], list(model.graph.output), [most, *model.graph.initializer]
    )
    file = tmp_path_factory.mktemp("pixels") / "pixels.onnx"
    opsets = list(model.opset_import)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version), file
    )
    return file


@pytest.fixture(scope="session")
def measured(compressed, foreign):
    """Ours by URI beside theirs by path, with a recipe that gives data: subjects and their runs."""
    options = replace(compressed.options, experiment="devices")
    (output,) = compressed.runs["int8"].outputs.model_outputs
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(compressed.folder)
        patch.setenv("MLFLOW_TRACKING_URI", options.tracking_uri)
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        found = measure(
            [f"models:/{output.model_id}", str(foreign)], options, recipe=compressed.recipe
        )
    home = compressed.client.get_experiment_by_name("devices")
    runs = {r.info.run_name: r for r in compressed.client.search_runs([home.experiment_id])}
    return found, runs


class TestBesideEachOther:
    def test_the_baseline_is_the_one_that_the_models_tags_name(self, compressed, measured):
        found, _ = measured
        assert [s.name for s, _ in found] == ["baseline", "int8", "theirs"]
        assert found[0][0].run_id == compressed.runs["baseline"].info.run_id

    def test_each_run_lies_below_what_it_measured(self, compressed, measured):
        _, runs = measured
        assert set(runs) == {"measure", "baseline", "int8", "theirs"}
        parent = runs.pop("measure")
        assert parent.data.tags["netzip.kind"] == "measure"
        above = {name: run.data.tags["mlflow.parentRunId"] for name, run in runs.items()}
        assert above == {
            "baseline": compressed.runs["baseline"].info.run_id,
            "int8": compressed.runs["int8"].info.run_id,
            "theirs": parent.info.run_id,
        }
        for run in (parent, *runs.values()):
            assert run.info.status == "FINISHED"

    def test_tags_say_on_what_and_against_what(self, compressed, measured):
        _, runs = measured
        origin = runs["baseline"].info.run_id
        for name in ("baseline", "int8", "theirs"):
            tags = runs[name].data.tags
            assert tags["netzip.kind"] == "measurement"
            assert tags["netzip.baseline"] == origin
            assert tags["netzip.device"]
            fingerprint = compressed.parent.data.tags["netzip.fingerprint"]
            assert tags["netzip.fingerprint"] == fingerprint, "the same machine and runtime"

    def test_the_same_file_has_the_same_figures_again(self, compressed, measured):
        _, runs = measured
        for name in ("baseline", "int8"):
            first, second = compressed.runs[name].data.metrics, runs[name].data.metrics
            for key in ("accuracy/top1", "speed/chats", "size/disk_bytes", "size/parameters"):
                assert second[key] == first[key]
            assert second["speed/latency_ms"] != first["speed/latency_ms"]

    def test_theirs_is_measured_by_the_same_code(self, compressed, measured, foreign, task):
        metrics = measured[1]["theirs"].data.metrics
        session = onnxruntime.InferenceSession(foreign)
        split = task.split("test", final=True)
        answers = [np.asarray(session.run(None, {"images": x})[0]) for x, _ in split.batches(64)]
        right = accuracy_score(split.targets, np.concatenate(answers).argmax(1))
        assert metrics["accuracy/top1"] == pytest.approx(right, abs=1e-12)
        assert metrics["size/disk_bytes"] == foreign.stat().st_size
        ours = compressed.runs["int8"].data.metrics
        for key in ("speed/macs", "speed/chats", "size/parameters", "speed/int8_layers"):
            assert metrics[key] == ours[key]
        assert metrics["ratio/S"] == 4.0
        assert metrics["ratio/C"] < ours["ratio/C"], "theirs carries names and scales"

    def test_scores_follow_from_the_ratios(self, measured):
        for name in ("int8", "theirs"):
            found = measured[1][name].data.metrics
            P, S, C = (found[f"ratio/{term}"] for term in "PSC")
            ocs = P * ((P - 1) + (S - 1) + (C - 1))
            assert found["score/ocs"] == pytest.approx(ocs, abs=1e-9)

    @pytest.mark.usefixtures("no_pictures")
    def test_compare_reads_them_and_never_calls_the_baseline_best(self, inside, measured):
        options = replace(inside.options, experiment="comparisons")
        _, ((frame, choice),) = compare(options, source="devices")
        assert list(frame["name"]) == ["baseline", "int8", "theirs"]
        assert choice.best in {"int8", "theirs"}


class TestAdapter:
    def test_it_is_for_files_of_other_tools_only(self, inside, pixels, task):
        """Ours, by URI, takes its input as it is, while theirs is given pixels, channels last."""
        (output,) = inside.runs["baseline"].outputs.model_outputs
        options = replace(inside.options, experiment="adapted")
        _, (_, theirs) = measure(
            [str(pixels)],
            options,
            baseline=f"models:/{output.model_id}",
            recipe=inside.recipe,
            adapter=Adapter(layout="nhwc", scale=255.0),
        )
        assert theirs.metrics["fidelity/agreement"] == 1.0
        assert theirs.metrics["ratio/P"] == 1.0
        logged = inside.runs["baseline"].data.metrics["accuracy/top1"]
        assert theirs.metrics["accuracy/top1"] == logged


class TestFilesOnly:
    def test_no_store_is_touched_and_no_accuracy_is_invented(
        self, compressed, foreign, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        # without a recipe the defaults hold, and take 20 seconds
        monkeypatch.setattr(stage, "MeasureSpec", lambda: compressed.recipe.measure)
        ours = compressed.model("baseline") / "model.onnx"
        numbered = foreign.with_name("theirs-2.onnx")
        shutil.copy(foreign, numbered)
        found = measure_files([str(foreign), str(foreign), str(numbered)], str(ours))
        assert [s.name for s, _ in found] == ["baseline", "theirs", "theirs-2", "theirs-2-2"]
        assert list(tmp_path.iterdir()) == []
        for _, each in found[1:]:
            assert not [k for k in each.metrics if k.startswith(("accuracy", "score", "ratio/P"))]
            assert each.metrics["ratio/S"] == 4.0
            size = ours.stat().st_size / foreign.stat().st_size
            assert each.metrics["ratio/C"] == pytest.approx(size)
            assert each.metrics["ratio/its_low"] <= each.metrics["ratio/its"]


def corrupt(folder: Path) -> Path:
    file = folder / "corrupt.onnx"
    file.write_bytes(b"\x08\x07 this was a model once")
    return file


def wide(folder: Path) -> Path:
    """A classifier of images that have another size."""
    weights = onnx.numpy_helper.from_array(np.ones((3 * 8 * 8, 10), np.float32), "w")
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Flatten", ["x"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "wide",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 10])],
        [weights],
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), folder / "wide.onnx"
    )
    return folder / "wide.onnx"


class TestBadInput:
    """Each is found before a run exists."""

    @pytest.fixture
    def none_left(self, workplace):
        import mlflow

        yield
        client = mlflow.MlflowClient(workplace.tracking_uri)
        homes = [e.experiment_id for e in client.search_experiments()]
        assert client.search_runs(homes) == []

    @pytest.fixture
    def ours(self, compressed) -> str:
        return str(compressed.model("baseline") / "model.onnx")

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (corrupt, "corrupt.onnx"),
            (wide, "takes images of (3, 8, 8)"),
            (lambda folder: folder / "missing.onnx", "no such ONNX file"),
        ],
        ids=["corrupt", "another shape", "missing"],
    )
    def test_a_file_that_cannot_be_measured(self, none_left, workplace, ours, tmp_path, make, says):
        with pytest.raises(InputError) as caught:
            measure([str(make(tmp_path))], workplace, baseline=ours)
        assert says in str(caught.value)

    def test_a_file_without_a_baseline(self, none_left, workplace, ours):
        with pytest.raises(InputError, match="names none in its tags"):
            measure([ours], workplace)

    def test_files_alone_need_a_baseline_by_path(self, ours):
        with pytest.raises(InputError, match="--baseline: is missing"):
            measure_files([ours], None)

    @pytest.mark.parametrize("threads", [0, -1])
    def test_a_number_of_threads_that_is_none(self, none_left, workplace, ours, threads):
        with pytest.raises(InputError, match="threads"):
            measure([ours], workplace, baseline=ours, spec=spec_of(None, threads, ()))
