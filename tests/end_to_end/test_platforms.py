"""What other systems lack, taken away here: modules, functions of `os`, signals, encodings."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Folder

# Libraries are imported before, as the ones built for that system would be: only ours do without.
WITHOUT = """\
import os, signal, sys
import mlflow, mlflow.onnx, mlflow.data.meta_dataset, mlflow.artifacts, onnxruntime, psutil, torch
import optuna, pandas, sklearn, sklearn.datasets, torchvision, onnx, matplotlib.pyplot
import torch_pruning, torch.onnx
import alembic, sqlalchemy.dialects.sqlite, tempfile, subprocess, getpass, shutil, multiprocessing
for name in {modules}:
    sys.modules[name] = None
for name in {functions}:
    if hasattr(os, name):
        delattr(os, name)
for name in {signals}:
    if hasattr(signal, name):
        delattr(signal, name)
from netzip_mlflow.cli import main
main(sys.argv[1:])
"""
WINDOWS = {
    "modules": ("fcntl", "pwd", "grp", "resource", "termios"),
    "functions": (
        *("getuid", "geteuid", "getgid", "fork", "killpg", "setsid", "nice", "uname", "statvfs"),
        *("sched_getaffinity", "sched_setaffinity", "O_CLOEXEC", "getloadavg", "chown", "mkfifo"),
    ),
    "signals": ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "pthread_sigmask"),
}
MACOS = {
    "modules": (),
    "functions": ("sched_getaffinity", "sched_setaffinity"),
    "signals": ("SIGPOLL", "SIGPWR", "SIGSTKFLT"),
}
LATIN = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "latin-1",
}


def ended(folder: Folder, lacks: dict, *arguments: str, **more: str) -> tuple[int, str, str]:
    code = WITHOUT.format(**lacks)
    process = folder.start(sys.executable, "-c", code, *arguments, **more)
    out, err = process.communicate()
    return process.returncode, out, err


@pytest.mark.slow
@pytest.mark.parametrize("lacks", [WINDOWS, MACOS], ids=["windows", "macos"])
def test_compress_needs_nothing_that_another_system_lacks(folder: Folder, lacks: dict) -> None:
    arguments = ("compress", "quick.yaml", "--set", "candidates.half=[half]", "--json", "--quiet")
    status, out, err = ended(folder, lacks, *arguments)
    assert (status, err) == (0, "")
    kept = json.loads(out)["candidates"]
    assert [c["status"] for c in kept] == ["FINISHED", "FINISHED"]
    assert set(folder.states().values()) == {"FINISHED"}


def test_search_says_what_it_lacks(folder: Folder) -> None:
    status, out, err = ended(folder, WINDOWS, "search", "quick.yaml", "--quiet")
    assert (status, out) == (2, "")
    assert "search" in err
    assert "fcntl" in err
    assert folder.runs() == []


NOBODY = """\
import getpass, os, pwd, sys
def nobody(*_):
    raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = nobody
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
from netzip_mlflow.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_user_without_a_passwd_entry_searches(folder: Folder) -> None:
    arguments = ("search", "quick.yaml", "--trials", "1", "--quiet", "--json")
    space = "search.space=[{prune_l1: {ratio: {low: 0.3, high: 0.6}}}]"
    process = folder.start(sys.executable, "-c", NOBODY, *arguments, "--set", space)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["trials"] == 1


@pytest.mark.slow
def test_compress_in_a_latin_locale(folder: Folder) -> None:
    """The report holds ★ and ×, class names may hold anything."""
    set_ = ("--set", "candidates.half=[half]")
    process = folder.netzip("compress", "quick.yaml", *set_, **LATIN)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert set(folder.states().values()) == {"FINISHED"}
    assert "half" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a?b#c d é", "new\nline"], ids=["address", "line"])
def test_any_folder_name(folder: Folder, name: str) -> None:
    """The store and its artifacts lie in the working folder, and nowhere else."""
    place = folder.path / "within" / name
    place.mkdir(parents=True)
    for file in ("quick.yaml", "lenet5.safetensors", "mlflow.db"):
        (folder.path / file).rename(place / file)
    arguments = ("compress", "quick.yaml", "--set", "candidates.half=[half]", "--json", "--quiet")
    command = (sys.executable, "-m", "netzip_mlflow", *arguments)
    environment = {k: v for k, v in folder.environment.items() if k != "MLFLOW_TRACKING_URI"}
    ended = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert [p.name for p in place.parent.iterdir()] == [name]
    assert len(list(place.glob("mlruns/**/model.onnx"))) == 2
