"""Folders of images."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from netzip_mlflow.data import Dataset, load_source, open_source
from netzip_mlflow.data.imagefolder import load
from netzip_mlflow.data.images import content_digests
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import DataSpec, SplitRule
from netzip_mlflow.tasks.classification import Classification


def opened(spec: DataSpec, seed: int) -> Dataset:
    """The data set of a recipe, as classification cuts and checks it."""
    source = load_source(spec)
    Classification.cut(source, spec, seed)
    return open_source(source, spec, seed, np.asarray)


SEEDS = iter(range(10**6))


def _write(folder: Path, n: int, size: tuple[int, int] = (10, 8), mode: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        noise = np.random.default_rng(next(SEEDS)).integers(0, 256, (*size[::-1], 3), np.uint8)
        Image.fromarray(noise).convert(mode).save(folder / f"{i:03}.png")


def _open(root: Path, **keys: Any) -> Dataset:
    settings: dict[str, Any] = {"size": 8, "validation": 4, "calibration": 4} | keys
    return opened(DataSpec(name="imagefolder", path=str(root), **settings), 0)


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    for part, n in (("train", 8), ("val", 3), ("test", 4)):
        for name in ("cat", "dog"):
            _write(tmp_path / part / name, n)
    return tmp_path


def test_parts_and_classes_are_folders(parted: Path) -> None:
    data = _open(parted, validation=SplitRule(first=6, of="validation"))
    assert data.classes == ("cat", "dog")
    assert (data.name, data.shape) == (parted.name, (3, 8, 8))
    assert {k: len(s) for k, s in data.splits.items()} == {
        "train": 16,
        "calibration": 4,
        "validation": 6,
        "test": 8,
    }
    assert data.splits["test"].targets.tolist() == [0] * 4 + [1] * 4


def test_a_folder_without_parts_is_all_train(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        _write(tmp_path / name, 10)
    (tmp_path / "a" / "notes.txt").write_text("left out")
    data = _open(tmp_path, test=0.2)
    assert data.classes == ("a", "b")
    assert {k: len(s) for k, s in data.splits.items() if k != "calibration"} == {
        "train": 12,
        "validation": 4,
        "test": 4,
    }


def test_images_are_those_of_pillow(parted: Path) -> None:
    part = load(DataSpec(name="imagefolder", path=str(parted))).parts["test"]
    files = sorted((parted / "test").glob("*/*.png"))
    wanted = np.stack([np.asarray(Image.open(f)) for f in files])
    np.testing.assert_array_equal(part.images[np.arange(8)], wanted)
    np.testing.assert_array_equal(part.images[np.array([5, 1])], wanted[[5, 1]])


def test_digests_are_of_the_files(parted: Path) -> None:
    part = load(DataSpec(name="imagefolder", path=str(parted), size=4)).parts["test"]
    files = sorted((parted / "test").glob("*/*.png"))
    wanted = [hashlib.sha256(f.read_bytes()).hexdigest()[:32].encode() for f in files]
    assert content_digests(part.images).tolist() == wanted


def test_grey_files_have_one_channel_unless_one_is_coloured(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / name, 10, mode="L")
    assert _open(tmp_path, test=0.2).shape == (1, 8, 8)
    _write(tmp_path / "c", 10, mode="RGB")
    assert _open(tmp_path, test=0.2).shape == (3, 8, 8)


def test_without_a_size_images_must_agree(parted: Path) -> None:
    assert _open(parted, size=None).shape == (3, 8, 10)
    _write(parted / "train" / "dog", 1, size=(9, 9))
    with pytest.raises(InputError, match=r"differ in size: .* 10x8 pixels, 000\.png 9x9"):
        _open(parted, size=None)
    assert _open(parted, size=6).shape == (3, 6, 6)


def _break_a_file(root: Path) -> None:
    (root / "train" / "cat" / "000.png").write_bytes(b"no image")


def _deep_pixels(root: Path) -> None:
    deep = Image.fromarray(np.full((8, 10), 40000, np.uint16))
    deep.save(root / "train" / "cat" / "000.png")


def _copy_into_test(root: Path) -> None:
    content = (root / "train" / "cat" / "000.png").read_bytes()
    (root / "test" / "dog" / "copy.png").write_bytes(content)


def _extra_class(root: Path) -> None:
    _write(root / "test" / "owl", 1)


def _empty_class(root: Path) -> None:
    (root / "train" / "owl").mkdir()


def _class_missing_in_test(root: Path) -> None:
    _write(root / "train" / "owl", 8)


def _two_validations(root: Path) -> None:
    _write(root / "validation" / "cat", 1)


def _no_train(root: Path) -> None:
    (root / "train").rename(root.parent / f"{root.name}-moved")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_break_a_file, r"cat.000.png: is no image that can be read"),
        (_deep_pixels, r"cat.000.png: has pixels of mode I;16; allowed: 8-bit"),
        (_copy_into_test, "train and test overlap|validation and test overlap"),
        (_extra_class, "test: has classes that train has not: owl; allowed: cat, dog"),
        (_empty_class, "no images of class owl"),
        (_class_missing_in_test, "test has no sample of class 'owl' .2."),
        (_two_validations, "has both val and validation"),
        (_no_train, "has test, val, but no sub-folder train"),
    ],
)
def test_a_faulty_folder_is_refused(parted: Path, harm, message: str) -> None:
    harm(parted)
    with pytest.raises(InputError, match=message):
        _open(parted)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no sub-folders; allowed: "):
        _open(tmp_path)


def test_a_file_that_breaks_later_is_named_when_it_is_read(parted: Path) -> None:
    data = _open(parted)
    victim = parted / "test" / "cat" / "002.png"
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(InputError, match=r"002.png: cannot be decoded"):
        list(data.splits["test"].batches(8))
