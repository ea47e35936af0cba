"""Temporary folders that name their process, so that what a dead one left is removed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from netzip_mlflow.processes import dead, me

__all__ = ["disown", "make", "remove", "sweep", "temporary", "temporary_files_in"]

PREFIX, OWNER, UNSENT = "netzip-", "owner.json", "unsent.json"
RANDOM = "[a-z0-9_]" * 8  # what mkdtemp puts behind a prefix
NAMELESS_S = 60.0
FILES = ".tmp"  # a name that no candidate has


def make(place: Path | None = None, prefix: str = PREFIX) -> Path:
    """A new folder of this process, in `place` or where temporary files go.

    Raises:
        OSError: it cannot be written.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        with contextlib.suppress(FileNotFoundError):  # a sweep has taken it for a dead process's
            (folder / OWNER).write_text(json.dumps(me()), encoding="utf-8")
            return folder


def remove(folder: Path) -> None:
    """Delete a folder, its owner's name last: whoever is killed here has it swept later."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name == OWNER:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def disown(folder: Path) -> None:
    """A folder that stays after its process, if it is still there: no sweep removes it."""
    (folder / OWNER).unlink(missing_ok=True)


@contextlib.contextmanager
def temporary(place: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """As `make`; the folder goes with the block."""
    folder = make(place, prefix)
    try:
        yield folder
    finally:
        remove(folder)


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """What libraries put among temporary files lies below `folder` while the block lasts."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder / FILES)
    (folder / FILES).mkdir()
    try:
        yield
    finally:
        tempfile.tempdir = before


def sweep(place: Path | None = None, prefix: str = PREFIX) -> None:
    """Remove this user's folders whose process is dead for certain; not what was never sent."""
    for folder in Path(place or tempfile.gettempdir()).glob(f"{prefix}{RANDOM}"):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if folder.is_symlink() or not _own(folder):
                continue
            if not any(folder.iterdir()):  # its process died before it wrote its name
                if time.time() - folder.stat().st_mtime > NAMELESS_S:
                    folder.rmdir()
            elif not (folder / UNSENT).exists() and dead(_owner(folder)):
                remove(folder)


def _own(folder: Path) -> bool:
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def _owner(folder: Path) -> object:
    return json.loads((folder / OWNER).read_text(encoding="utf-8"))
