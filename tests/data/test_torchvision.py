"""torchvision's data sets, from files laid out as it expects them, and when there are none."""

from __future__ import annotations

import csv
import inspect
import socket
import struct
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from netzip_mlflow.data import Dataset, load_source, open_source
from netzip_mlflow.data.torchvision import SETS, load, missing
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import DataSpec, SplitRule
from netzip_mlflow.tasks.classification import Classification


def opened(spec: DataSpec, seed: int) -> Dataset:
    """The data set of a recipe, as classification cuts and checks it."""
    source = load_source(spec)
    Classification.cut(source, spec, seed)
    return open_source(source, spec, seed, np.asarray)


RNG = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """No test reaches the network; gives the time limits under which it was tried."""
    limits: list[float | None] = []

    def refuse(*args: Any, **kwargs: Any) -> None:
        limits.append(socket.getdefaulttimeout())
        raise URLError("the network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return limits


def _spec(name: str, root: Path, **keys: Any) -> DataSpec:
    return DataSpec(name=name, path=str(root), calibration=10, **keys)


def _write_idx(path: Path, array: np.ndarray) -> None:
    """The format of Yann LeCun's files: magic number, sizes, bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def test_every_set_is_one_of_torchvisions_and_takes_the_arguments() -> None:
    for name, known in SETS.items():
        constructor = getattr(datasets, name)
        for arguments in known.parts.values():
            inspect.signature(constructor).bind("root", **{**arguments, **known.arguments})
        assert "train" in known.parts


def test_mnist_from_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = {}
    for prefix, n in (("train", 60), ("t10k", 30)):
        images[prefix] = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        _write_idx(folder / f"{prefix}-images-idx3-ubyte", images[prefix])
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8))
    data = opened(_spec("MNIST", tmp_path, validation=10), 0)
    assert data.shape == (1, 28, 28)
    assert data.classes[3] == "3 - three"
    test = data.splits["test"]
    np.testing.assert_array_equal(test.images[np.arange(30)][..., 0], images["t10k"])
    np.testing.assert_array_equal(test.targets, np.arange(30) % 10)
    larger = opened(_spec("MNIST", tmp_path, validation=10, size=32), 0)
    assert larger.shape == (1, 32, 32)


def _signs(root: Path) -> None:
    base = root / "gtsrb"
    for label in range(43):
        folder = base / "GTSRB" / "Training" / f"{label:05}"
        folder.mkdir(parents=True)
        for track in range(4):
            for frame in range(3):
                _save(folder / f"{track:05}_{frame:05}.ppm")
    (base / "GTSRB" / "Final_Test" / "Images").mkdir(parents=True)
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Filename", "ClassId"])
        for label in range(43):
            writer.writerow([f"{label:05}.ppm", label])
            _save(base / "GTSRB" / "Final_Test" / "Images" / f"{label:05}.ppm")


def _save(path: Path) -> None:
    width, height = RNG.integers(6, 12, 2)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def test_gtsrb_keeps_tracks_together(tmp_path: Path) -> None:
    _signs(tmp_path)
    source = load(_spec("GTSRB", tmp_path, size=8))
    groups = source.parts["train"].groups
    assert groups is not None
    assert len(np.unique(groups)) == 43 * 4
    data = opened(_spec("GTSRB", tmp_path, size=8, validation=0.25), 0)
    assert len(data.classes) == 43
    assert {k: len(s) for k, s in data.splits.items()} == {
        "train": 43 * 9,
        "calibration": 10,
        "validation": 43 * 3,
        "test": 43,
    }


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    _signs(tmp_path)
    with pytest.raises(InputError, match=r"differ in size.*give `data.size`"):
        opened(_spec("GTSRB", tmp_path), 0)


def test_eurosat_is_one_part(tmp_path: Path) -> None:
    for name in ("Forest", "River"):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for i in range(20):
            Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{i}.jpg")
    data = opened(_spec("EuroSAT", tmp_path, validation=0.2, test=0.2), 0)
    assert (data.classes, data.shape) == (("Forest", "River"), (3, 64, 64))
    assert len(data.splits["train"]) == 24


def test_aircraft_ships_a_validation_part(tmp_path: Path) -> None:
    base = tmp_path / "fgvc-aircraft-2013b" / "data"
    (base / "images").mkdir(parents=True)
    (base / "variants.txt").write_text("A300\nB747\n")
    number = 0
    for part, n in (("train", 20), ("val", 6), ("test", 4)):
        lines = []
        for i in range(n):
            _save_as_jpeg(base / "images" / f"{number:07}.jpg")
            lines.append(f"{number:07} {('A300', 'B747')[i % 2]}\n")
            number += 1
        (base / f"images_variant_{part}.txt").write_text("".join(lines))
    rule = SplitRule(first=6, of="validation")
    data = opened(_spec("FGVCAircraft", tmp_path, size=8, validation=rule), 0)
    assert data.classes == ("A300", "B747")
    assert data.splits["validation"].targets.tolist() == [0, 1, 0, 1, 0, 1]
    assert len(data.splits["train"]) == 20


def _save_as_jpeg(path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(path)


def test_a_download_that_fails_says_what_was_tried_and_where(
    tmp_path: Path, offline: list[float | None]
) -> None:
    with pytest.raises(InputError) as caught:
        opened(_spec("CIFAR10", tmp_path), 0)
    text = str(caught.value)
    assert f"CIFAR10 is not in {tmp_path}" in text
    assert "downloading it there failed" in text
    assert "network is unreachable" in text
    assert "by hand" in text
    assert offline
    assert None not in offline
    assert socket.getdefaulttimeout() is None


def test_a_set_that_is_fetched_by_hand_is_not_downloaded(
    tmp_path: Path, offline: list[float | None]
) -> None:
    with pytest.raises(InputError, match=r"ImageNet is not in .* cannot be downloaded"):
        opened(_spec("ImageNet", tmp_path), 0)
    assert offline == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spilt": "letters"}, "unexpected keyword argument 'spilt'"),
        ({"split": "leters"}, "Unknown value 'leters'"),
    ],
)
def test_arguments_that_torchvision_refuses(tmp_path: Path, arguments, message: str) -> None:
    with pytest.raises(InputError, match=f"data.arguments: torchvision's EMNIST.*{message}"):
        opened(_spec("EMNIST", tmp_path, arguments=arguments), 0)


@pytest.mark.parametrize("name", list(SETS))
def test_what_is_not_there_is_named_and_nothing_is_fetched(
    name: str, tmp_path: Path, offline: list[float | None]
) -> None:
    problem = missing(_spec(name, tmp_path / "none"))
    assert problem is not None
    assert problem.where == "data.path"
    assert problem.what == f"{name} is not in {tmp_path / 'none'}"
    assert ("would download" in problem.hint) == SETS[name].download
    assert offline == [], "the network was asked"
    assert list(tmp_path.iterdir()) == []


def test_half_of_a_set_is_missing_all_of_it_is_not(tmp_path: Path) -> None:
    _signs(tmp_path)
    assert missing(_spec("GTSRB", tmp_path)) is None
    (tmp_path / "gtsrb" / "GT-final_test.csv").unlink()
    assert missing(_spec("GTSRB", tmp_path)) is not None


def test_arguments_that_the_constructor_refuses_are_no_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.arguments: torchvision's MNIST refuses them"):
        missing(_spec("MNIST", tmp_path, arguments={"colour": True}))
