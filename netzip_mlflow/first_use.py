"""A database's tables, made whole before anybody sees them, whoever is killed while they are."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from netzip_mlflow import databases, folders
from netzip_mlflow.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["made_whole"]

PREFIX = ".netzip-new-"
LAST = "alembic_version"  # MLflow's last table, and Optuna's
LOCK = 0x6E65747A  # PostgreSQL's advisory locks have numbers
PATIENCE_S, POLL_S = 120.0, 0.2


def made_whole(url: str, make: Callable[[str], None]) -> None:
    """Have `make(url)` make a database's tables, if it has none: for sqlite in a file aside, which
    is then put in place unless another process was quicker; for PostgreSQL one process at a time.

    Of sqlite there is nothing to wait for: who begins at the same time makes a file of their own.

    Raises:
        InputError: another process has not ended making them within two minutes.
        Exception: as `make` does.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        return  # whoever opens it says so
    kind = parsed.get_backend_name()
    if kind == "sqlite" and (name := parsed.database or "") and not name.startswith((":", "file:")):
        _aside(Path(name), parsed, make)
    elif kind == "postgresql":
        _one_at_a_time(url, make)


def _aside(file: Path, url: URL, make: Callable[[str], None]) -> None:
    folders.sweep(file.parent, PREFIX)
    if file.exists() or not os.access(file.parent, os.W_OK):
        return
    with folders.temporary(file.parent, PREFIX) as folder:
        new = folder / file.name
        make(url.set(database=str(new)).render_as_string(hide_password=False))
        try:
            file.hardlink_to(new)
        except FileExistsError:
            return
        except OSError:  # some file systems have no links
            turn = file.with_name(f"{PREFIX}in__turn")  # as a temporary folder's: it is swept
            with contextlib.suppress(FileExistsError):  # another one puts its file there just now
                turn.mkdir()
                try:
                    if not file.exists():
                        new.rename(file)
                finally:
                    turn.rmdir()


def _one_at_a_time(url: str, make: Callable[[str], None]) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        url, connect_args=databases.connect_args(url), poolclass=sqlalchemy.NullPool
    )
    lock = sqlalchemy.select(sqlalchemy.func.pg_try_advisory_xact_lock(LOCK))
    with engine.begin() as connection:  # the lock is held as long as it
        if sqlalchemy.inspect(connection).has_table(LAST):
            return
        end = time.monotonic() + PATIENCE_S
        while not connection.scalar(lock):
            if time.monotonic() > end:
                shown = databases.without_password(url)
                raise InputError(f"{shown}: another process does not end making its tables")
            time.sleep(POLL_S)
        make(url)
