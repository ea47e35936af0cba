"""A network from MLflow's registry: compressed by nothing, and by several techniques."""

from __future__ import annotations

import json

import pytest

from netzip_mlflow.errors import InputError

CANDIDATES = """{
nothing: [{prune_channels: {ratio: 0}}, {factorise: {ratio: 1}}, {prune_l1: {ratio: 0}}],
all-energy: [{factorise: {method: energy, energy: 1}}, {prune_random: {ratio: 0}}],
thin: [{prune_channels: {ratio: 0.25}}, ptq],
trained: [{qat: {bits: 4, epochs: 1}}],
sparse: [{prune_l1: {ratio: 0.5}}, {qat: {bits: 4, epochs: 1}}, ptq],
binary: [{binarise: {layers: conv2, epochs: 1}}],
}"""
NOTHING = ("nothing", "all-energy")
MUCH = ("thin", "trained", "sparse", "binary")


@pytest.fixture(scope="module")
def uri(compressed) -> str:
    """The trained baseline, as a version of a registered model."""
    import mlflow

    mlflow.set_tracking_uri(compressed.options.tracking_uri)  # the source is looked up there
    (output,) = compressed.runs["baseline"].outputs.model_outputs
    compressed.client.create_registered_model("digits")
    made = compressed.client.create_model_version("digits", f"models:/{output.model_id}")
    return f"models:/digits/{made.version}"


@pytest.fixture(scope="module")
def again(compressed, run_compress, uri):
    """A compress run that starts from it and trains no baseline."""
    changes = (f"model={{uri: '{uri}'}}", "train=null", f"candidates={CANDIDATES}")
    return run_compress(compressed.folder, *changes, pictures=False)


def manifest(run, name: str) -> dict:
    return json.loads((run.model(name) / "extra_files" / "netzip.json").read_text())


def test_the_baseline_is_the_registered_model(compressed, again):
    assert {name: run.info.status for name, run in again.runs.items()} == dict.fromkeys(
        ("baseline", *NOTHING, *MUCH), "FINISHED"
    )
    files = [run.model("baseline") / "model.onnx" for run in (compressed, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not any(k.startswith("training/") for k in again.runs["baseline"].data.metrics)


@pytest.mark.parametrize("name", NOTHING)
def test_compressing_by_nothing_gives_the_baseline(again, name):
    ours, theirs = (again.model(n) / "model.onnx" for n in (name, "baseline"))
    assert ours.read_bytes() == theirs.read_bytes()
    metrics = again.runs[name].data.metrics
    for split in ("", "validation/"):
        assert metrics[f"{split}ratio/P"] == 1
        assert metrics[f"{split}score/ocs"] == 0
        assert metrics[f"{split}accuracy/drop_points"] == 0
        assert metrics[f"{split}fidelity/agreement"] == 1
    for ratio in ("S", "C", "pcr", "zip"):
        assert metrics[f"ratio/{ratio}"] == 1, ratio
    baseline = again.runs["baseline"].data.metrics
    for key in ("accuracy/top1", "accuracy/ece", "speed/macs", "speed/chats", "size/nonzero"):
        assert metrics[key] == baseline[key]


def test_the_techniques_do_their_work(again):
    metrics = {name: again.runs[name].data.metrics for name in MUCH}
    assert metrics["thin"]["ratio/pcr"] > 1
    assert metrics["sparse"]["size/sparsity"] > 0.4
    assert [n for n in MUCH if "training/loss" in metrics[n]] == ["trained", "sparse", "binary"]


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("thin", [8, 8, 8, 8, 8]),
        ("trained", [8, 4, 4, 4, 8]),
        ("sparse", [8, 3, 3, 3, 7]),  # half are zeros: a bit for each weight, 4 for every other one
        ("binary", [8, 1, 8, 8, 8]),
    ],
)
def test_every_layer_is_executed_as_int8_and_stored_in_the_bits_asked_for(again, name, stored):
    metrics = again.runs[name].data.metrics
    assert metrics["speed/int8_layers"] == metrics["speed/layers"] == 5
    layers = manifest(again, name)["layers"]
    assert [layer["name"] for layer in layers] == ["conv1", "conv2", "fc1", "fc2", "linear"]
    assert {layer["activation_bits"] for layer in layers} == {8}
    assert [round(8 * x["weight_bytes"] / x["parameters"]) for x in layers] == stored


def test_other_data_are_refused_before_any_run(
    compressed, run_compress, uri, tmp_path, monkeypatch
):
    (tmp_path / "halves.py").write_text(
        "import numpy as np\n"
        "def two():\n"
        "    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32), dtype=np.uint8)\n"
        "    return {'x_train': images, 'y_train': np.arange(200) % 2}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    count = len(compressed.client.search_runs([compressed.outcome.experiment_id]))
    for change, says in (
        (
            "data={name: digits, size: 28, test: 0.2}",
            r"input: \(1, 32, 32\) given, \(1, 28, 28\) wanted",
        ),
        (
            "data={factory: 'halves:two', test: 0.2, calibration: 16}",
            r"outputs: scores \(10,\) given, scores \(2,\) wanted",
        ),
    ):
        with pytest.raises(InputError, match=rf"^model\.uri: {uri} .*{says}"):
            run_compress(compressed.folder, f"model={{uri: '{uri}'}}", "train=null", change)
    assert len(compressed.client.search_runs([compressed.outcome.experiment_id])) == count
