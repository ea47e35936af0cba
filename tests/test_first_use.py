"""Tables are there whole or not at all, whoever is killed while they are made."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from netzip_mlflow.first_use import made_whole

TABLES = ["first", "second"]

# Makes the first of two tables, and waits for a word that never comes.
VICTIM = """
import sys, sqlalchemy
from netzip_mlflow.first_use import made_whole
def make(url):
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE first (n)")
        connection.commit()
        print("half", flush=True)
        sys.stdin.read()
made_whole(sys.argv[1], make)
"""


def path_of(url: str) -> str:
    return url.partition(":///")[2].partition("?")[0]


def make(url: str) -> None:
    with closing(sqlite3.connect(path_of(url))) as connection:
        for name in TABLES:
            connection.execute(f"CREATE TABLE {name} (n)")


def tables(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]


def never(_url: str) -> None:
    raise AssertionError("it is there")


@pytest.mark.parametrize("query", ["", "?timeout=5"])
def test_they_are_made_aside_and_put_in_place(tmp_path, query):
    file, places = tmp_path / "store.db", []

    def look(url: str) -> None:
        places.append(Path(path_of(url)))
        assert url.endswith(query)
        assert not file.exists()
        make(url)

    made_whole(f"sqlite:///{file}{query}", look)
    assert tables(file) == TABLES
    assert places[0].parent.parent == tmp_path, "on the same file system"
    assert [p.name for p in tmp_path.iterdir()] == ["store.db"]
    made_whole(f"sqlite:///{file}{query}", never)


def test_a_path_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_whole("sqlite:///store.db", make)
    assert tables(tmp_path / "store.db") == TABLES


def test_many_at_once_and_one_is_quicker(tmp_path):
    """All are in the middle of it at the same time; nobody's tables are replaced."""
    file, number = tmp_path / "store.db", 4
    together, wins, faults = threading.Barrier(number), [], []

    def use(name: str) -> None:
        def slow(url: str) -> None:
            make(url)
            together.wait(30)

        try:
            made_whole(f"sqlite:///{file}", slow)
            with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
                connection.execute("INSERT INTO first VALUES (?)", (name,))
        except Exception as fault:  # noqa: BLE001 (any is one)
            faults.append(fault)

    threads = [threading.Thread(target=use, args=(str(n),)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with closing(sqlite3.connect(file)) as connection:
        wins = sorted(name for (name,) in connection.execute("SELECT n FROM first"))
    assert wins == ["0", "1", "2", "3"], "all wrote to the same file"
    assert [p.name for p in tmp_path.iterdir()] == ["store.db"]


def test_who_is_killed_leaves_nothing_in_the_way(tmp_path):
    file = tmp_path / "store.db"
    url = f"sqlite:///{file}"
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        made_whole(f"sqlite:///{tmp_path / 'other.db'}", make)
        (left,) = tmp_path.glob(".netzip-new-*")
        assert json.loads((left / "owner.json").read_text())["pid"] == process.pid, "it lives"
        process.kill()
    assert not file.exists()
    made_whole(url, make)
    assert tables(file) == TABLES
    assert sorted(os.listdir(tmp_path)) == ["other.db", "store.db"]  # noqa: PTH208


def test_a_fault_leaves_nothing_and_is_said(tmp_path):
    def full(url: str) -> None:
        make(url)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        made_whole(f"sqlite:///{tmp_path / 'store.db'}", full)
    assert list(tmp_path.iterdir()) == []


def test_what_another_program_has_put_there_stays(tmp_path):
    file = tmp_path / "store.db"

    def meanwhile(url: str) -> None:
        make(url)
        file.write_bytes(b"theirs")

    made_whole(f"sqlite:///{file}", meanwhile)
    assert file.read_bytes() == b"theirs"


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refused(_self: Path, _target: Path) -> None:
        raise PermissionError("links are not supported")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    made_whole(f"sqlite:///{tmp_path / 'store.db'}", make)
    assert tables(tmp_path / "store.db") == TABLES
    made_whole(f"sqlite:///{tmp_path / 'store.db'}", never)


def test_without_links_one_process_at_a_time_puts_its_file_in_place(tmp_path, monkeypatch):
    """Both saw no file, and the other one's is about to be there: it may hold runs already."""

    def refused(_self: Path, _target: Path) -> None:
        raise PermissionError("links are not supported")

    file, turn = tmp_path / "store.db", tmp_path / ".netzip-new-in__turn"

    def slow(url: str) -> None:
        make(url)
        turn.mkdir()

    monkeypatch.setattr(Path, "hardlink_to", refused)
    made_whole(f"sqlite:///{file}", slow)
    assert list(tmp_path.iterdir()) == [turn], "it is the other one's"
    os.utime(turn, (0, 0))  # who was killed meanwhile
    made_whole(f"sqlite:///{file}", make)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "./mlruns", "mysql://h/d"],
)
def test_what_is_no_file_is_left_alone(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    made_whole(url, never)
    made_whole(f"sqlite:///{tmp_path / 'missing' / 'store.db'}", never)
    assert list(tmp_path.iterdir()) == []
