"""Data sets in .npz files: good ones, and one message for each way of being wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netzip_mlflow.data import Dataset, load_source, open_source
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import DataSpec, SplitRule
from netzip_mlflow.tasks.classification import Classification


def opened(spec: DataSpec, seed: int) -> Dataset:
    """The data set of a recipe, as classification cuts and checks it."""
    source = load_source(spec)
    Classification.cut(source, spec, seed)
    return open_source(source, spec, seed, np.asarray)


RNG = np.random.default_rng(2)


def _arrays(**changes: Any) -> dict[str, Any]:
    arrays = {
        "x_train": RNG.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8),
        "y_test": np.arange(12) % 3,
    }
    return {k: v for k, v in (arrays | changes).items() if v is not None}


def _open(folder: Path, arrays: dict[str, Any], **keys: Any) -> Dataset:
    path = folder / "set.npz"
    np.savez(path, **arrays)
    settings: dict[str, Any] = {"validation": 6, "calibration": 6} | keys
    return opened(DataSpec(name="npz", path=str(path), **settings), 0)


def test_arrays_become_splits(tmp_path: Path) -> None:
    arrays = _arrays(classes=np.array(["a", "b", "c"]))
    data = _open(tmp_path, arrays, validation=SplitRule(first=6, of="test"))
    assert data.classes == ("a", "b", "c")
    assert (data.name, data.shape) == ("set", (3, 8, 8))
    ((x, y),) = data.splits["test"].batches(100)
    np.testing.assert_array_equal(np.rint(x * 255), arrays["x_test"][6:].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(y, arrays["y_test"][6:])


def test_grey_images_need_no_axis_for_their_channel(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays = {k: v[..., 0] if k.startswith("x") else v.astype(np.uint8) for k, v in arrays.items()}
    assert _open(tmp_path, arrays).shape == (1, 8, 8)


def test_a_group_column_keeps_samples_together(tmp_path: Path) -> None:
    tracks = np.array([f"t{i // 3}" for i in range(30)])
    data = _open(tmp_path, _arrays(track_train=tracks), groups="track")
    x_train = _arrays_of(data, "train") | _arrays_of(data, "validation")
    assert len(x_train) == 30
    assert len(data.splits["validation"]) % 3 == 0


def _arrays_of(data: Dataset, split: str) -> set[bytes]:
    return {image.tobytes() for x, _ in data.splits[split].batches(8) for image in x}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "x_train: is missing .it holds: x_test, y_test, y_train"),
        ({"y_test": None}, "y_test: is missing"),
        ({"x_train": None, "y_train": None}, "x_train: is missing"),
        ({"x_val": np.zeros(1)}, "x_val: unknown array; allowed: x_train"),
        ({"x_train": np.zeros((30, 8, 8, 3), np.float32)}, "x_train: has dtype float32; allowed"),
        ({"x_train": np.zeros((30, 64), np.uint8)}, r"x_train: has shape \(30, 64\)"),
        ({"x_train": np.zeros((30, 3, 8, 8), np.uint8)}, "x_train: has 8 channels.*come last"),
        ({"x_train": np.zeros((0, 8, 8, 3), np.uint8), "y_train": np.arange(0)}, "is empty"),
        ({"y_train": np.arange(29) % 3}, "x_train: has 30 images, but y_train has 29 targets"),
        ({"y_train": np.eye(3)[np.arange(30) % 3]}, "part 'train': labels are float64"),
        ({"y_train": np.arange(30) % 3 - 1}, "10 labels outside the classes, the first is -1"),
        ({"classes": np.array(["a", "b"])}, "labels outside the classes, the first is 2"),
        ({"x_test": np.zeros((12, 9, 9, 3), np.uint8)}, "differ in shape"),
        ({"y_test": np.zeros(12, np.int64)}, "test has no sample of class '1' .1., '2' .2."),
        ({"y_train": np.array([None] * 30)}, "cannot be read as .npz"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _open(tmp_path, _arrays(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "data.groups: no column 'track' .it would be track_train or track_test"),
        ({"track_train": np.arange(29)}, r"track_train: has shape \(29,\); allowed: \(30,\)"),
    ],
)
def test_a_faulty_group_column_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _open(tmp_path, _arrays(**changes), groups="track")


def test_several_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        _open(
            tmp_path, _arrays(x_train=np.zeros((30, 8), np.uint8), x_test=np.zeros((12, 8, 8, 3)))
        )
    assert [problem.where for problem in caught.value.problems] == ["x_train", "x_test"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        opened(DataSpec(name="npz", path=str(path)), 0)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(InputError, match="holds one array"):
        opened(DataSpec(name="npz", path=str(path)), 0)


def test_overlaps_are_an_error_or_dropped(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays["x_train"][[3, 4]] = arrays["x_test"][[0, 1]]
    with pytest.raises(InputError, match=r"images of .* are in test too"):
        _open(tmp_path, arrays)
    data = _open(tmp_path, arrays, duplicates="drop")
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 28
    assert len(data.splits["test"]) == 12


@pytest.mark.skipif("NETZIP_DATA" not in os.environ, reason="NETZIP_DATA names no folder of data")
def test_cifar10_with_validation_out_of_test() -> None:
    path = Path(os.environ["NETZIP_DATA"]) / "cifar10.npz"
    spec = DataSpec(name="npz", path=str(path), validation=SplitRule(first=2000, of="test"))
    data = opened(spec, 0)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 20000,
        "calibration": 256,
        "validation": 2000,
        "test": 8000,
    }
    with np.load(path) as held:
        np.testing.assert_array_equal(data.splits["test"].targets, held["y_test"][2000:])
