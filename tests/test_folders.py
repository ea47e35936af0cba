"""Temporary folders: whose they are, and who removes them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from netzip_mlflow import folders, processes

GONE = {"pid": 4194000}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left(place: Path, name: str, owner: object) -> Path:
    folder = place / name
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "model.onnx").write_bytes(b"measured")
    (folder / "owner.json").write_text(json.dumps(owner))
    return folder


def test_a_dead_process_leaves_nothing(place):
    left(place, "netzip-dead_one", processes.me() | GONE)
    folders.sweep()
    assert list(place.iterdir()) == []


def test_what_is_not_a_dead_processs_stays(place):
    """Of the living, of another machine, of nobody; and what was never sent."""
    own = folders.make()
    other = {"boot": "other", "namespace": "pid:[1]", "machine": []}
    left(place, "netzip-other_pc", processes.me() | GONE | other)
    left(place, "netzip-nobody_1", None)
    left(place, "netzip-nonsense", [1])
    left(place, "netzip-nonsens2", {})
    (place / "netzip-10000000").mkdir()
    (place / "netzip-10000000" / "turn").write_text("")
    (place / "netzip-mine").mkdir()
    os.utime(place / "netzip-mine", (0, 0))
    left(place, "netzip-results", processes.me() | GONE)
    unsent = left(place, "netzip-unsent_1", processes.me() | GONE)
    (unsent / "unsent.json").write_text("[]")
    left(place, "somebody-elses", processes.me() | GONE)
    outside = left(place, "outside", processes.me() | GONE)
    (place / "netzip-linked_1").symlink_to(outside)
    before = {p for p in place.rglob("*") if p.name != "netzip-linked_1"}
    folders.sweep()
    assert before <= {*place.rglob("*")}
    assert own in before
    assert (place / "netzip-linked_1").is_symlink()


def test_a_folder_without_a_name_yet(place, monkeypatch):
    """Its process died between the two; or it lives, and sleeps for longer than a minute."""
    (place / "netzip-empty_00").mkdir()
    folders.sweep()
    assert len(list(place.iterdir())) == 1, "its process may live"
    os.utime(place / "netzip-empty_00", (0, 0))
    folders.sweep()
    assert list(place.iterdir()) == []
    made, real = [], tempfile.mkdtemp

    def swept(**named):
        folder = real(**named)
        made.append(folder)
        if len(made) == 1:
            os.utime(folder, (0, 0))
            folders.sweep()
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    assert folders.make() == Path(made[1])
    assert json.loads((Path(made[1]) / "owner.json").read_text())["pid"] == os.getpid()


def test_the_owners_name_goes_last(place, monkeypatch):
    """A folder that lost it, and nothing else, would stay for ever."""
    folder = left(place, "netzip-dead", processes.me() | GONE)
    real, order = os.unlink, []

    def noted(path, **named):
        order.append(os.path.basename(path))  # noqa: PTH119 (os.unlink takes any path)
        real(path, **named)

    monkeypatch.setattr(os, "unlink", noted)
    folders.remove(folder)
    assert order == ["model.onnx", "owner.json"]
    assert not folder.exists()


def test_a_temporary_folder_goes_with_its_block(place):
    with folders.temporary() as folder:
        assert folder.parent == place
        with folders.temporary_files_in(folder):
            assert Path(tempfile.mkdtemp()).is_relative_to(folder)
        assert tempfile.gettempdir() == str(place)
    assert list(place.iterdir()) == []
    folders.remove(folder)
