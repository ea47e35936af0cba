"""What the store never got, in a folder: files, and `unsent.json` that says what to do with them.

`netzip resend FOLDER` sends it. What was sent is taken out of the file at once, so that a second
call, or one after an interruption, goes on where the first one ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.tracking.writes import Write

__all__ = ["FILE", "Unsent", "load", "rescue", "save"]

FILE = "unsent.json"
FORMAT = 1


@dataclass(frozen=True)
class Unsent:
    """Writes with all that sending them takes.

    Args:
        store: the address, without its password.
        experiment: its name and, where it was there, its id.
        runs, models: the ids that the store gave, by what stands for the run in the writes.
    """

    store: str
    experiment: Mapping[str, str | None]
    runs: Mapping[str, str]
    models: Mapping[str, str]
    writes: tuple[Write, ...]


def rescue(folder: Path, unsent: Unsent, *, only_files: bool) -> Path:
    """Move a work folder out of the temporary ones, with its unsent writes; returns where it is.

    It stays where it is when the current folder is gone, or cannot be written.

    Args:
        only_files: keep only the files that are to be sent: everything else was.
    """
    place, target = folder, f"netzip-unsent-{folder.name.removeprefix('netzip-')}"
    try:
        if not Path(target).exists():
            shutil.move(folder, target)
            place = Path.cwd() / target
    except shutil.Error:  # to another file system, which took a part of it
        shutil.rmtree(target, ignore_errors=True)
    except OSError:
        pass
    writes = tuple(_moved(write, folder, place) for write in unsent.writes)
    if only_files:
        _prune(place, {write.file for write in writes if write.file is not None})
    save(place, Unsent(unsent.store, unsent.experiment, unsent.runs, unsent.models, writes))
    return place


def save(folder: Path, unsent: Unsent) -> None:
    """Write the folder's `unsent.json`, whole or not at all."""

    def plain(write: Write) -> dict[str, Any]:
        file = write.file
        if file is not None and file.is_relative_to(folder):
            file = file.relative_to(folder)
        return asdict(write) | {"file": None if file is None else file.as_posix()}

    content = asdict(unsent) | {"format": FORMAT, "writes": [plain(w) for w in unsent.writes]}
    aside = folder / f"{FILE}.new"
    aside.write_text(json.dumps(content, indent=2), encoding="utf-8")
    aside.replace(folder / FILE)


def load(folder: Path) -> Unsent:
    """What lies in a folder.

    Raises:
        InputError: it holds no `unsent.json` that can be read.
    """
    file = folder / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        writes = tuple(_read(each, folder) for each in content["writes"])
        return Unsent(
            str(content["store"]),
            dict(content["experiment"]),
            dict(content["runs"]),
            dict(content["models"]),
            writes,
        )
    except OSError as error:
        said = error.strerror or type(error).__name__
        problem = Problem(str(file), f"cannot be read: {said}", f"a folder that holds {FILE}")
        raise InputError(problem) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file}: is not what netzip has written: {error!r}") from None


def _read(plain: dict[str, Any], folder: Path) -> Write:
    file = plain["file"]
    plain["file"] = None if file is None else folder / file
    return Write(**plain)


def _moved(write: Write, before: Path, after: Path) -> Write:
    if write.file is None or not write.file.is_relative_to(before):
        return write
    file = after / write.file.relative_to(before)
    return Write(write.kind, write.run, write.name, write.at, write.what, file)


def _prune(folder: Path, wanted: Iterable[Path]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds, before the folder
        if any(path == each or path in each.parents or each in path.parents for each in wanted):
            continue
        path.rmdir() if path.is_dir() else path.unlink()
