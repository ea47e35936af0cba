"""A deployable: the file that ships and its manifest."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest

from netzip_mlflow.deployable import Deployable, file_digest
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.metrics import operations
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Twin


def test_the_manifest_says_what_the_file_is(baseline: Deployable, twin: Twin) -> None:
    known = dict(baseline.manifest)
    layers = known.pop("layers")
    assert known == {
        "task": "classification",
        "input": {
            "name": "images",
            "dtype": "float32",
            "layout": "NCHW",
            "range": [0, 1],
            "shape": [3, 12, 12],
        },
        "outputs": [{"name": "scores", "shape": [4]}],
        "classes": ["0", "1", "2", "3"],
        "chain": [],
        "opset": {"ai.onnx": baseline.model.opset_import[0].version},
        "ir_version": baseline.model.ir_version,
        "twin_digest": twin.digest(),
        "model_digest": baseline.digest,
        "float_deviation": known["float_deviation"],
        "versions": {
            name: version(name) for name in ("netzip-mlflow", "torch", "onnx", "onnxruntime")
        },
    }
    assert json.loads(json.dumps(baseline.manifest)) == baseline.manifest, "plain JSON"
    # 12 x 12 outputs of 3x3x3 products for 8 channels, and so on, by hand
    assert [
        (layer["name"], layer["op"], layer["macs"], layer["parameters"]) for layer in layers
    ] == [
        ("conv1", "Conv", 12 * 12 * 8 * 27, 8 * 27 + 8),
        ("conv2", "Conv", 6 * 6 * 16 * 72, 16 * 72 + 16),
        ("linear", "Gemm", 16 * 4, 16 * 4 + 4),
    ]
    assert {(layer["weight_bits"], layer["activation_bits"]) for layer in layers} == {(32, 32)}


def test_the_manifests_layers_sum_to_the_graphs_totals(baseline: Deployable) -> None:
    totals = operations.totals(operations.layers(baseline.model))
    assert sum(layer["macs"] for layer in baseline.manifest["layers"]) == totals["macs"]


def test_the_chain_of_the_twin_is_told(twin: Twin, context: Context) -> None:
    pruned = PruneL1(0.5).apply(twin, context)
    made = deploy(pruned, context)
    assert made.manifest["chain"] == ["prune_l1(0.5)"]
    assert made.manifest["twin_digest"] == pruned.digest()


def test_the_digest_is_that_of_the_file(baseline: Deployable, tmp_path: Path) -> None:
    file = baseline.save(tmp_path)
    assert hashlib.sha256(file.read_bytes()).hexdigest()[:16] == baseline.digest
    assert file_digest(file) == baseline.digest


def test_two_files_are_written_and_nothing_else(baseline: Deployable, tmp_path: Path) -> None:
    file = baseline.save(tmp_path / "new" / "folder")
    assert sorted(p.name for p in file.parent.iterdir()) == ["model.onnx", "netzip.json"]
    assert json.loads((file.parent / "netzip.json").read_text()) == baseline.manifest
    assert onnx.load(file) == baseline.model


def test_an_older_file_is_replaced_whole(
    baseline: Deployable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline.save(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"older")
    written = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        written(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NetzipError, match=r"cannot be written: .*No space left on device"):
        baseline.save(tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == b"older", "not half a file"


def test_a_folder_that_cannot_be_written(baseline: Deployable, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(NetzipError, match=r"taken: cannot be written"):
        baseline.save(tmp_path / "taken")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.onnx: cannot be read"):
        file_digest(tmp_path / "gone.onnx")


def test_facts_join_the_manifest(baseline: Deployable, twin: Twin, context: Context) -> None:
    source = context.exports(twin)
    made = Deployable.of(source.model, twin, source, task="some task", label="own(1)", note=3)
    assert made.manifest["note"] == 3
    assert made.manifest["task"] == "some task"
    assert made.manifest["chain"] == ["own(1)"]
