"""Stdout is for the result alone, whatever prints, and in whatever encoding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LOUD = """\
import atexit, ctypes, os, subprocess, sys
print("printed by Python")
os.write(1, b"written to descriptor 1\\n")
ctypes.CDLL(None).puts(b"printed by C")
ctypes.CDLL(None).fflush(None)
subprocess.run([sys.executable, "-c", "print('printed by a process')"])
atexit.register(print, "printed at the end")

def f(twin, context):
    return twin
"""
TABLE = "technique,top1,chats_g,disk_mb\nplain,0.9,1,1\n★ schön,0.9,0.5,0.5\n"


@pytest.fixture
def loud(tmp_path: Path) -> Path:
    """A folder with a recipe whose own technique's module prints in every way."""
    (tmp_path / "loud.py").write_text(LOUD, encoding="utf-8")
    recipe = {
        "name": "loud",
        "data": {"name": "digits", "test": 0.2},
        "model": {"name": "lenet5"},
        "train": {"epochs": 1},
        "candidates": {"own": ["loud:f"]},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "netzip_mlflow", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def test_json_is_alone_whatever_a_users_module_prints(loud: Path) -> None:
    ended = run(loud, "compress", "r.yaml", "--dry-run", "--json")
    assert ended.returncode == 0
    assert isinstance(json.loads(ended.stdout), dict)
    for way in ("by Python", "to descriptor 1", "by C", "by a process", "at the end"):
        assert way in ended.stderr


def test_a_text_result_is_alone_too(loud: Path) -> None:
    ended = run(loud, "validate", "r.yaml")
    assert ended.returncode == 0
    assert ended.stdout.startswith("loud: valid, 1 candidate, digest ")
    assert ended.stdout.count("\n") == 1


def test_help_reaches_stdout(tmp_path: Path) -> None:
    ended = run(tmp_path, "validate", "--help")
    assert "Usage" in ended.stdout
    assert ended.stderr == ""


def test_without_a_stdout_nothing_fails(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m netzip_mlflow list metrics --json >&-"
    ended = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=False)
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("encoding", "star"), [("latin-1", "\\u2605"), ("cp1252", "\\u2605"), ("utf-8", "★")]
)
def test_what_an_encoding_lacks_is_escaped(tmp_path: Path, encoding: str, star: str) -> None:
    (tmp_path / "t.csv").write_text(TABLE, encoding="utf-8")
    ended = run(tmp_path, "score", "t.csv", PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"{star} sch" in ended.stdout
