"""A data set in a folder, one sub-folder a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from netzip_mlflow.data.files import open_files
from netzip_mlflow.data.source import PARTS, Part, Source
from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.recipe import DataSpec, locate

__all__ = ["load"]

SUFFIXES = (".jpeg", ".jpg", ".png")
FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def load(spec: DataSpec) -> Source:
    """The images below `spec.path`: ``{train,validation|val,test}/class/*`` or ``class/*``.

    A folder with a sub-folder `train` ships parts; else all of it is one part, train. Classes
    are the names of train's sub-folders, sorted. Files that are no .jpg, .jpeg or .png are left
    out. Images are decoded when they are read, resized to `spec.size` on the short side and
    centre cropped; their digests are those of the files' bytes.

    Raises:
        InputError: the folder has another layout, a class without images, or a file that is no
            image; without `spec.size`, images differ in size.
    """
    root = locate(spec.path or "", "data.path")
    try:
        folders = _part_folders(root)
        classes = _folders(folders["train"])
        listed = {part: _samples(folder, classes, root) for part, folder in folders.items()}
        _require_images(listed["train"][1], classes, folders["train"])
    except OSError as error:
        raise InputError(f"cannot be read: {error}", str(root)) from None
    images = open_files({name: paths for name, (paths, _) in listed.items()}, spec.size, str(root))
    parts = {name: Part(images[name], labels) for name, (_, labels) in listed.items()}
    return Source(root.resolve().name, tuple(classes), parts)


def _folders(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _part_folders(root: Path) -> Mapping[str, Path]:
    held = _folders(root)
    if not held:
        allowed = f"{{{','.join(PARTS)}}}/class/*.jpg|png or class/*.jpg|png"
        raise InputError(Problem("", "has no sub-folders", allowed), str(root))
    if "train" not in held and set(held) <= set(FOLDERS):
        raise InputError(f"has {', '.join(held)}, but no sub-folder train", str(root))
    if "train" not in held:
        return {"train": root}
    if "val" in held and "validation" in held:
        raise InputError("has both val and validation; allowed: one of them", str(root))
    return {FOLDERS[name]: root / name for name in held if name in FOLDERS}


def _samples(folder: Path, classes: Sequence[str], root: Path) -> tuple[list[Path], np.ndarray]:
    """Paths, class by class and sorted, and labels int64 (n,)."""
    unknown = [name for name in _folders(folder) if name not in classes]
    if unknown:
        what = f"has classes that train has not: {', '.join(unknown[:5])}"
        raise InputError(Problem(folder.name, what, ", ".join(classes[:20])), str(root))
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = folder / name
        files = sorted(inside.iterdir()) if inside.is_dir() else []
        images = [f for f in files if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
        paths += images
        labels += [label] * len(images)
    return paths, np.array(labels, dtype=np.int64)


def _require_images(labels: np.ndarray, classes: Sequence[str], folder: Path) -> None:
    empty = [name for label, name in enumerate(classes) if label not in labels]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        what = f"no images of class {', '.join(empty[:5])}{more}"
        raise InputError(Problem("", what, f"{', '.join(SUFFIXES)} files"), str(folder))
