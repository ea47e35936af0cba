"""An exported folder works where only ONNX Runtime and numpy are, and an opset is honest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from netzip_mlflow.errors import InputError
from netzip_mlflow.stages.export import export


@pytest.fixture
def folder(inside, tmp_path) -> Path:
    """A candidate, exported by its run."""
    place = tmp_path / "shipped"
    run = inside.runs["chain"].info.run_id
    written = export(f"runs:/{run}", place, tracking_uri=inside.options.tracking_uri)
    assert written == ["golden.npz", "model.onnx", "netzip.json", "predict.py"]
    return place


def golden(place: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(place / "golden.npz") as found:
        return found["images"], found["scores"]


def test_its_predict_gives_the_golden_classes(folder, tmp_path):
    images, scores = golden(folder)
    np.save(tmp_path / "images.npy", images)
    moved, home = tmp_path / "on-a-device", tmp_path / "home"
    shutil.move(folder, moved)
    home.mkdir()
    told = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "predict.py", str(tmp_path / "images.npy")],
        cwd=moved,
        env=told | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    classes = json.loads((moved / "netzip.json").read_text())["classes"]
    assert done.stdout.split() == [classes[i] for i in scores.argmax(1)]
    assert len(set(done.stdout.split())) > 1
    assert list(home.rglob("*")) == []  # no device id, no queue of events for anybody


def test_predict_is_short_and_needs_nothing_of_ours(folder):
    lines = (folder / "predict.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 14
    assert not [line for line in lines if "import" in line and "netzip" in line]


def test_the_file_is_the_one_that_was_measured(folder, inside):
    content = (folder / "model.onnx").read_bytes()
    digest = inside.runs["chain"].data.tags["netzip.model_digest"]
    assert hashlib.sha256(content).hexdigest()[:16] == digest


def test_a_path_can_be_exported_too(folder, tmp_path):
    again = tmp_path / "again"
    assert export(str(folder), again) == sorted(p.name for p in folder.iterdir())
    assert (again / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_a_bare_file_has_no_predict_since_nobody_knows_its_classes(folder, tmp_path):
    (tmp_path / "bare").mkdir()
    bare = shutil.copy(folder / "model.onnx", tmp_path / "bare" / "theirs.onnx")
    assert export(str(bare), tmp_path / "out") == ["model.onnx"]


class TestOpset:
    def current(self, place: Path) -> int:
        found = onnx.load(place / "model.onnx").opset_import
        return next(o.version for o in found if not o.domain)

    def test_one_that_can_be_had_answers_the_same_and_is_described(self, folder, tmp_path):
        wanted = self.current(folder) + 1
        export(str(folder), tmp_path / "newer", wanted)
        assert self.current(tmp_path / "newer") == wanted
        manifest = json.loads((tmp_path / "newer" / "netzip.json").read_text())
        assert manifest["opset"]["ai.onnx"] == wanted
        content = (tmp_path / "newer" / "model.onnx").read_bytes()
        assert manifest["model_digest"] == hashlib.sha256(content).hexdigest()[:16]
        images, scores = golden(folder)
        session = onnxruntime.InferenceSession(tmp_path / "newer" / "model.onnx")
        answers = np.asarray(session.run(None, {"images": images})[0])
        np.testing.assert_allclose(answers, scores, atol=1e-3)

    @pytest.mark.parametrize("opset", [7, 0, -3, 99])
    def test_one_that_cannot_be_had_is_refused_and_nothing_is_written(
        self, folder, tmp_path, opset
    ):
        with pytest.raises(InputError, match=f"--opset: {opset} cannot be had from") as caught:
            export(str(folder), tmp_path / "out", opset)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda place: (place.mkdir(), (place / "notes.txt").write_text("mine")), "not empty"),
            (lambda place: place.write_text("a file"), "not empty"),
        ],
        ids=["full", "file"],
    )
    def test_a_folder_that_is_in_use_is_left_alone(self, folder, tmp_path, make, says):
        place = tmp_path / "taken"
        make(place)
        before = {p: p.read_text() for p in (place, *place.glob("*")) if p.is_file()}
        with pytest.raises(InputError, match=says):
            export(str(folder), place)
        assert {p: p.read_text() for p in (place, *place.glob("*")) if p.is_file()} == before

    def test_a_folder_that_cannot_be_written(self, folder, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot be written"):
            export(str(folder), tmp_path / "file" / "below")

    @pytest.mark.parametrize("opset", [None, 20])
    def test_a_corrupt_file_is_not_passed_on(self, tmp_path, opset):
        (tmp_path / "corrupt.onnx").write_bytes(b"\x08\x07 this was a model once")
        with pytest.raises(InputError, match=r"corrupt\.onnx"):
            export(str(tmp_path / "corrupt.onnx"), tmp_path / "out", opset)
        assert not (tmp_path / "out").exists()
