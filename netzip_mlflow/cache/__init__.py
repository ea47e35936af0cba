"""Stage cache: what float techniques made of a twin, so that chains share their beginnings.

A folder of entries named by their key (`keys.ingredients`: all that the result hangs on). Each
holds a twin as `Twin.save` writes it (safetensors and JSON) and `entry.json`. Entries appear and
disappear by one rename, so that any number of processes may use one folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow.cache import keys
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.twin import DESCRIPTION, WEIGHTS, Twin

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Deployable
    from netzip_mlflow.techniques import Context, Technique

__all__ = ["Applied", "StageCache", "timed"]

FOLDER, LIMIT = "NETZIP_CACHE", "NETZIP_CACHE_MAX_BYTES"
ENTRY, FORMAT = "entry.json", 2
KEY = re.compile(r"[0-9a-f]{32}")
LEFT_OVER = 3600  # seconds after which an unfinished entry belongs to a process that died
Note = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Applied:
    """What a technique made and its wall time, that of the making where the cache gave it (`hit`).

    `key` is empty where there is none.
    """

    result: Twin | Deployable
    seconds: float
    key: str = ""
    hit: bool = False


@dataclass(frozen=True)
class StageCache:
    """Entries below `folder`; the least recently used go when they exceed `limit` bytes.

    `allow`: what a twin from there may import (`Twin.load`).
    """

    folder: Path
    limit: int = 2 * 2**30
    allow: frozenset[str] = frozenset()

    @classmethod
    def open(
        cls, environment: Mapping[str, str] = os.environ, allow: frozenset[str] = frozenset()
    ) -> StageCache | None:
        """The user's cache: NETZIP_CACHE, else XDG_CACHE_HOME/netzip, else ~/.cache/netzip.

        None where NETZIP_CACHE_MAX_BYTES is 0, or the user has no home.

        Raises:
            InputError: NETZIP_CACHE_MAX_BYTES is no whole number.
        """
        text = environment.get(LIMIT, "").strip()
        if text and not text.isdecimal():
            raise InputError(
                f"{LIMIT}: {text!r} given; allowed: a whole number of bytes, 0 or more"
            )
        limit = int(text) if text else cls.limit
        folder, shared = environment.get(FOLDER, ""), Path(environment.get("XDG_CACHE_HOME", ""))
        try:
            home = shared if shared.is_absolute() else Path.home() / ".cache"
        except RuntimeError:
            home = None
        base = Path(folder).expanduser().absolute() if folder else home and home / "netzip"
        return None if base is None or limit == 0 else cls(base / "stages", limit, allow)

    def apply(
        self, technique: Technique, twin: Twin, context: Context, note: Note = lambda _line: None
    ) -> Applied:
        """As `technique.apply`, or what it made before; `note` is told why a result is not kept.

        What is kept is also handed on as it was read back, so that a chain goes on from the same
        twin whether or not its beginning was in the cache.
        """
        label = technique.label()
        if technique.traits.kind != "float":
            return timed(technique, twin, context)
        try:
            parts = keys.ingredients(technique, twin, context)
        except NetzipError as reason:
            note(f"{label}: not cached: {reason}")
            return timed(technique, twin, context)
        key = keys.digest(parts)
        stored = self._read(key, note)
        if stored is not None:
            return stored
        applied = timed(technique, twin, context)
        if not isinstance(applied.result, Twin):
            return applied
        entry = {"made_from": parts, "seconds": applied.seconds}
        kept = self._keep(key, applied.result, entry, lambda why: note(f"{label}: {why}"))
        return Applied(kept, applied.seconds, key)

    def tidy(self) -> None:
        """Drop the least recently used entries until all fit, and what dead processes left."""
        with contextlib.suppress(OSError):
            for left in [*self.folder.glob(".new-*"), *self.folder.glob(".old-*")]:
                with contextlib.suppress(OSError):
                    if time.time() - left.stat().st_mtime > LEFT_OVER:
                        shutil.rmtree(left, ignore_errors=True)
            entries = sorted(self._entries())
            total = sum(size for _, size, _ in entries)
            for _, size, folder in entries:
                if total <= self.limit:
                    break
                self._drop(folder)
                total -= size

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """When last used (ns), bytes, folder."""
        for folder in self.folder.iterdir():
            if KEY.fullmatch(folder.name):
                with contextlib.suppress(OSError):  # another process has just dropped it
                    yield folder.stat().st_mtime_ns, _size(folder), folder

    def _read(self, key: str, note: Note) -> Applied | None:
        folder = self.folder / key
        damage: Exception | None = None
        for _ in range(2):  # another process may drop the entry under a reader, and store it anew
            if not folder.is_dir():
                return None
            try:
                twin, seconds = _load(folder, self.allow)
            except (OSError, ValueError, KeyError, TypeError, NetzipError) as error:
                damage = error
                continue
            with contextlib.suppress(OSError):
                os.utime(folder)
            return Applied(twin, seconds, key, hit=True)
        self._drop(folder)
        note(f"cache: entry {key} was damaged ({damage}); dropped, computed again")
        return None

    def _keep(self, key: str, twin: Twin, about: Mapping[str, Any], note: Note) -> Twin:
        """Store a twin and what is known `about` it where that can be done; what to go on with."""
        partial = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
            twin.save(partial)
            again = Twin.load(partial, self.allow)
            if not _same(twin, again):
                note("not cached: what it changed is not part of a saved twin")
                return twin
            files = {name: _digest(partial / name) for name in (WEIGHTS, DESCRIPTION)}
            entry = {"format": FORMAT, "files": files, **about}
            (partial / ENTRY).write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
            if _size(partial) > self.limit:
                note(f"not cached: {_size(partial):,} bytes, the cache holds {self.limit:,}")
                return twin
            with contextlib.suppress(OSError):  # it is there: another process was faster
                partial.rename(self.folder / key)
        except (OSError, NetzipError) as error:
            note(f"not cached: {error}")
            return twin
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
        self.tidy()
        return again

    def _drop(self, folder: Path) -> None:
        """Away at once for whoever looks, then deleted."""
        with contextlib.suppress(OSError):
            away = Path(tempfile.mkdtemp(prefix=".old-", dir=self.folder))
            with contextlib.suppress(OSError):
                folder.rename(away / folder.name)
            shutil.rmtree(away, ignore_errors=True)


def timed(technique: Technique, twin: Twin, context: Context) -> Applied:
    """A technique applied, without a cache.

    Raises:
        NetzipError: as the technique does, and where its code would end the process.
    """
    start = time.monotonic()
    try:
        result = technique.apply(twin, context)
    except SystemExit as ended:
        raise NetzipError(f"{technique.label()} called for an exit ({ended.code})") from ended
    return Applied(result, time.monotonic() - start)


def _load(folder: Path, allow: frozenset[str]) -> tuple[Twin, float]:
    """The twin of an entry whose files are those that were stored, and the seconds that it took."""
    entry = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
    for name in (WEIGHTS, DESCRIPTION):
        if _digest(folder / name) != entry["files"][name]:
            raise ValueError(f"{name} is not what was stored")
    return Twin.load(folder, allow), float(entry["seconds"])


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _same(twin: Twin, again: Twin) -> bool:
    """Whether the twin read back is the one that was made: values, structure, and its answer."""
    import torch

    plain = twin.copy()
    plain.model.cpu().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return twin.digest() == again.digest() and keys.answer(plain) == keys.answer(again)
