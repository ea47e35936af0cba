"""Which data sets there are, what each needs of a recipe, and the check of a recipe's `data`.

Literal tables: listing and checking import nothing heavy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netzip_mlflow.data import torchvision
from netzip_mlflow.data.source import Source
from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.factories import FACTORY_PATH
from netzip_mlflow.recipe import DataSpec, locate

__all__ = ["SOURCES", "Entry", "check", "load", "missing", "names"]


@dataclass(frozen=True)
class Entry:
    """One kind of source.

    Attributes:
        load: "module:function", called with the `DataSpec`, returns a `Source`.
        about: one line for `netzip list data`.
        takes: the optional keys of the recipe's `data` that it reads.
        path: what `data.path` must be: "file", "folder", "root" (made when missing), or none.
    """

    load: str
    about: str
    takes: tuple[str, ...] = ()
    path: str | None = None


SOURCES = {
    "digits": Entry(
        "netzip_mlflow.data.digits:load",
        "1,797 handwritten digits of scikit-learn, 1x32x32, embedded (needs no download)",
        takes=("size",),
    ),
    "npz": Entry(
        "netzip_mlflow.data.npz:load",
        "arrays x_train, y_train, x_test, y_test, ... of one .npz file",
        takes=("groups",),
        path="file",
    ),
    "imagefolder": Entry(
        "netzip_mlflow.data.imagefolder:load",
        "a folder of images: {train,validation,test}/class/*.jpg|png or class/*.jpg|png",
        takes=("size",),
        path="folder",
    ),
}
TORCHVISION = {
    name: Entry(
        "netzip_mlflow.data.torchvision:load",
        f"torchvision: {known.about}",
        takes=("size", "arguments"),
        path="root",
    )
    for name, known in torchvision.SETS.items()
}
FACTORY = Entry(
    "netzip_mlflow.data.factory:load",
    "a function of yours that returns a Source, or a mapping of arrays",
    takes=("arguments", "groups"),
)
OPTIONAL = ("path", "size", "groups", "arguments")


def names() -> dict[str, str]:
    """The data sets that a recipe's `data.name` may give, each with one line about it."""
    return {name: entry.about for name, entry in (SOURCES | TORCHVISION).items()}


def load(spec: DataSpec) -> Source:
    """The source that a recipe's `data` asks for; `check` has passed.

    Raises:
        InputError: it cannot be had.
    """
    module, _, function = _entry(spec).load.partition(":")
    loader: Callable[[DataSpec], Source] = getattr(importlib.import_module(module), function)
    return loader(spec)


def missing(spec: DataSpec) -> Problem | None:
    """What of a recipe's data is not on this machine; downloads nothing. `check` has passed.

    Raises:
        InputError: torchvision refuses `spec.arguments`.
    """
    if spec.name in TORCHVISION:
        return torchvision.missing(spec)
    kind = _entry(spec).path
    return _absent(kind, locate(spec.path or "", "data.path")) if kind else None


def _entry(spec: DataSpec) -> Entry:
    return FACTORY if spec.name is None else (SOURCES | TORCHVISION)[spec.name]


def check(raw: Mapping[str, Any], *, files: bool = True) -> list[Problem]:
    """What is wrong with the names and paths in a raw recipe's `data`; shapes are the schema's.

    `files`: a file or folder that is not there is wrong too.
    """
    data = raw.get("data")
    if not isinstance(data, Mapping):
        return []
    name, factory = data.get("name"), data.get("factory")
    if isinstance(name, str) and factory is None:
        entry = (SOURCES | TORCHVISION).get(name)
        return _unknown(name) if entry is None else _keys(name, entry, data, files)
    if isinstance(factory, str) and name is None:
        problems = _keys("a factory", FACTORY, data, files)
        if not FACTORY_PATH.fullmatch(factory):
            problems.append(Problem("data.factory", f"{factory!r}", "module:function"))
        return problems
    return []


def _unknown(name: str) -> list[Problem]:
    known = list(names())
    folded = [k for k in known if k.casefold() == name.casefold()]
    hint = f"did you mean {folded[0]!r}?" if folded else did_you_mean(name, known)
    what = f"no data set is called {name!r}"
    return [Problem("data.name", what, ", ".join(known), hint)]


def _keys(name: str, entry: Entry, data: Mapping[str, Any], files: bool) -> list[Problem]:
    takes = {*entry.takes, "path"} if entry.path else set(entry.takes)
    problems = [
        Problem(f"data.{key}", f"{name} takes no {key}", ", ".join(sorted(takes)) or "none")
        for key in OPTIONAL
        if data.get(key) not in (None, {}) and key not in takes
    ]
    path = data.get("path")
    if entry.path and path is None:
        problems.append(Problem("data.path", "is missing", f"the {entry.path} of {name}"))
    elif isinstance(path, str):
        try:
            place = locate(path, "data.path")
        except InputError as error:
            return [*problems, *error.problems]
        found = [_of_another_kind(entry.path, place)]
        found += [_absent(entry.path, place)] if files else []
        problems += [problem for problem in found if problem]
    return problems


def _of_another_kind(kind: str | None, path: Path) -> Problem | None:
    if kind == "file" and path.is_dir():
        return Problem("data.path", f"{path} is a folder", "an existing file")
    if kind in ("folder", "root") and path.exists() and not path.is_dir():
        allowed = "an existing folder" if kind == "folder" else "a folder"
        return Problem("data.path", f"{path} is a file", allowed)
    return None


def _absent(kind: str | None, path: Path) -> Problem | None:
    if kind not in ("file", "folder") or path.exists():
        return None
    return Problem("data.path", f"no such {kind}: {path}", f"an existing {kind}")
