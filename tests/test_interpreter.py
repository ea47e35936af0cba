"""Our own processes import Python's modules and this package, whatever the user's folder holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import netzip_mlflow
from netzip_mlflow import interpreter

SHADOWED = ("random", "types", "json", "typing", "enum", "re", "numpy", "netzip_mlflow")


@pytest.fixture
def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with modules of those names that end whoever imports them."""
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_module_runs_as_a_script_with_its_arguments(crowded: Path) -> None:
    command = interpreter.command("netzip_mlflow", "list", "metrics")
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "score/ocs" in ended.stdout


def test_it_is_this_package_and_the_working_folder_is_not_searched(crowded: Path) -> None:
    show = "import netzip_mlflow, sys; print(netzip_mlflow.__file__); print(*sys.path, sep='\\n')"
    command = interpreter.command("netzip_mlflow.errors")
    command[3] += show
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    package, *path = ended.stdout.splitlines()
    assert package == netzip_mlflow.__file__
    assert not {str(crowded), ""} & set(path)


@pytest.mark.parametrize("name", ["random", "json", "csv", "numpy"])
def test_python_m_looks_into_the_working_folder_last(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py')", encoding="utf-8")
    (tmp_path / "own.py").write_text("def f(twin, context):\n    return twin\n", encoding="utf-8")
    (tmp_path / "r.yaml").write_text(
        "name: a\ndata: {name: digits, test: 0.2}\nmodel: {name: lenet5}\ntrain: {epochs: 1}\n"
        "candidates: {own: ['own:f']}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "netzip_mlflow", "validate", "r.yaml"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "a: valid, 1 candidate" in ended.stdout
