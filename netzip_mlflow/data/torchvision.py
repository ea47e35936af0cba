"""torchvision's classification data sets by name, found below a root or downloaded into it."""

from __future__ import annotations

import http.client
import inspect
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from netzip_mlflow.data.files import open_files
from netzip_mlflow.data.images import fit
from netzip_mlflow.data.source import Part, Source
from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.recipe import DataSpec, locate

__all__ = ["SETS", "Known", "load", "missing"]

SILENCE = 20.0  # seconds that a server may be silent before a download is given up


@dataclass(frozen=True)
class Known:
    """What is known of one of torchvision's data sets without importing it.

    Attributes:
        about: one line.
        parts: for each part that it ships, the constructor's arguments.
        samples: the attributes that hold the files' paths and the labels, or one attribute of
            (path, label) pairs; empty: small images, all decoded when the set is opened.
        classes: the number of classes, where the data set does not name them.
        tracks: the files' names begin with the track that they belong to, in these parts.
        download: whether torchvision can fetch it.
        arguments: the constructor's, for all parts; a recipe's `data.arguments` go over them.
    """

    about: str
    parts: Mapping[str, Mapping[str, Any]]
    samples: tuple[str, ...] = ()
    classes: int = 0
    tracks: tuple[str, ...] = ()
    download: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)


_BY_FLAG = {"train": {"train": True}, "test": {"train": False}}
_TWO = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {**_TWO, "validation": {"split": "val"}}
_FILES = ("_image_files", "_labels")

SETS = {
    "CIFAR10": Known("60,000 images of 10 classes, 32x32", _BY_FLAG),
    "CIFAR100": Known("60,000 images of 100 classes, 32x32", _BY_FLAG),
    "MNIST": Known("70,000 handwritten digits, 28x28 grey", _BY_FLAG),
    "FashionMNIST": Known("70,000 pieces of clothing of 10 classes, 28x28 grey", _BY_FLAG),
    "KMNIST": Known("70,000 Japanese characters of 10 classes, 28x28 grey", _BY_FLAG),
    "EMNIST": Known(
        "handwritten letters and digits, 28x28 grey; arguments: {split: balanced}",
        _BY_FLAG,
        arguments={"split": "balanced"},
    ),
    "USPS": Known("9,298 handwritten digits, 16x16 grey", _BY_FLAG),
    "SVHN": Known("99,289 house numbers of 10 classes, 32x32", _TWO, classes=10),
    "STL10": Known("13,000 labelled images of 10 classes, 96x96", _TWO),
    "GTSRB": Known(
        "51,839 traffic signs of 43 classes; training images of one track stay together",
        _TWO,
        ("_samples",),
        classes=43,
        tracks=("train",),
    ),
    "EuroSAT": Known(
        "27,000 satellite images of 10 classes, 64x64, one part", {"train": {}}, ("samples",)
    ),
    "ImageNet": Known(
        "ILSVRC 2012, 1,000 classes; its archives are fetched by hand; ships train and validation",
        {"train": {"split": "train"}, "validation": {"split": "val"}},
        ("samples",),
        download=False,
    ),
    "Imagenette": Known(
        "13,394 images of 10 ImageNet classes; ships train and validation",
        {"train": {"split": "train"}, "validation": {"split": "val"}},
        ("_samples",),
    ),
    "Food101": Known("101,000 dishes of 101 classes", _TWO, _FILES),
    "Flowers102": Known("8,189 flowers of 102 classes", _THREE, _FILES, classes=102),
    "OxfordIIITPet": Known(
        "7,349 cats and dogs of 37 breeds",
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
        ("_images", "_labels"),
    ),
    "FGVCAircraft": Known("10,000 aircraft of 100 variants", _THREE, _FILES),
    "DTD": Known("5,640 textures of 47 classes", _THREE, _FILES),
    "StanfordCars": Known(
        "16,185 cars of 196 models; fetched by hand", _TWO, ("_samples",), download=False
    ),
    "Country211": Known(
        "63,300 photographs of 211 countries",
        {**_TWO, "validation": {"split": "valid"}},
        ("samples",),
    ),
    "RenderedSST2": Known("9,613 rendered sentences of 2 classes", _THREE, ("_samples",)),
}


def load(spec: DataSpec) -> Source:
    """The parts of torchvision's data set `spec.name` below `spec.path`, downloaded if missing.

    Raises:
        InputError: it is not there and cannot be downloaded, or its constructor refuses
            `spec.arguments`.
    """
    name = spec.name or ""
    known = SETS[name]
    root = locate(spec.path or "", "data.path")
    opened = {part: _open(name, root, given) for part, given in _arguments(spec).items()}
    parts = (
        _in_files(name, known, opened, spec.size) if known.samples else _decoded(opened, spec.size)
    )
    return Source(name, _classes(known, opened["train"]), parts)


def missing(spec: DataSpec) -> Problem | None:
    """What of the data set `spec.name` is not below `spec.path`; downloads nothing.

    Raises:
        InputError: torchvision's constructor refuses `spec.arguments`.
    """
    name, root = spec.name or "", locate(spec.path or "", "data.path")
    for given in _arguments(spec).values():
        try:
            _construct(name, root, given)
        except (RuntimeError, OSError):
            hint = "compress would download it there" if SETS[name].download else _by_hand(name)
            return Problem("data.path", f"{name} is not in {root}", hint=hint)
    return None


def _arguments(spec: DataSpec) -> dict[str, dict[str, Any]]:
    """The constructor's, for each part."""
    known = SETS[spec.name or ""]
    return {part: {**own, **known.arguments, **spec.arguments} for part, own in known.parts.items()}


def _by_hand(name: str) -> str:
    return f"put torchvision's files for {name} there by hand; docs of torchvision.datasets.{name}"


def _construct(name: str, root: Path, arguments: Mapping[str, Any]) -> Any:
    from torchvision import datasets

    constructor = getattr(datasets, name)
    try:
        return constructor(str(root), **arguments)
    except (TypeError, ValueError) as error:
        what = f"torchvision's {name} refuses them: {error}"
        allowed = f"{name}{inspect.signature(constructor)}"
        raise InputError(Problem("data.arguments", what, allowed)) from error


def _open(name: str, root: Path, arguments: Mapping[str, Any]) -> Any:
    try:
        return _construct(name, root, arguments)
    except (RuntimeError, OSError) as error:
        absent = error
    if not SETS[name].download:
        what = f"{name} is not in {root} and cannot be downloaded: {absent}"
        raise InputError(Problem("data.path", what, hint=_by_hand(name))) from absent
    try:
        with _give_up_in(SILENCE):
            return _construct(name, root, {"download": True, **arguments})
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        what = f"{name} is not in {root} ({absent}), and downloading it there failed: {error}"
        raise InputError(Problem("data.path", what, hint=_by_hand(name))) from error


@contextmanager
def _give_up_in(seconds: float) -> Iterator[None]:
    """Let new connections time out; torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _decoded(opened: Mapping[str, Any], size: int | None) -> dict[str, Part]:
    """Parts of images that are small enough to hold decoded."""
    parts = {}
    for part, dataset in opened.items():
        channels = 1 if dataset[0][0].mode == "L" else 3
        samples = [dataset[i] for i in range(len(dataset))]
        images = np.stack([fit(image, channels, size) for image, _ in samples])
        parts[part] = Part(images, np.array([int(label) for _, label in samples], dtype=np.int64))
    return parts


def _in_files(
    name: str, known: Known, opened: Mapping[str, Any], size: int | None
) -> dict[str, Part]:
    paths: dict[str, list[Path]] = {}
    labels: dict[str, np.ndarray] = {}
    for part, dataset in opened.items():
        held = [getattr(dataset, attribute) for attribute in known.samples]
        pairs = held[0] if len(held) == 1 else zip(*held, strict=True)
        listed = [(Path(path), int(label)) for path, label in pairs]
        paths[part] = [path for path, _ in listed]
        labels[part] = np.array([label for _, label in listed], dtype=np.int64)
    images = open_files(dict(paths), size, name)
    return {
        part: Part(
            images[part], labels[part], _tracks(paths[part]) if part in known.tracks else None
        )
        for part in opened
    }


def _tracks(paths: list[Path]) -> np.ndarray:
    """GTSRB names the frames of a track 00003_00000.ppm, 00003_00001.ppm, ... class by class."""
    return np.array([f"{path.parent.name}/{path.stem.partition('_')[0]}" for path in paths])


def _classes(known: Known, dataset: Any) -> tuple[str, ...]:
    """By name; where a class has several names (ImageNet), the first."""
    named = getattr(dataset, "classes", None) or range(known.classes)
    return tuple(str(c[0] if isinstance(c, tuple) else c) for c in named)
