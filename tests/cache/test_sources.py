"""A digest of the code that is called, with all that it imports of the user's own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from netzip_mlflow.cache import sources
from netzip_mlflow.cache.sources import package_digest, source_digest
from netzip_mlflow.techniques.prune_l1 import PruneL1

MAIN = """
import torch
from .shapes import factor
import json as plain


class Scale:
    def apply(self, twin, context):
        from lazily_used import offset

        return factor() + offset.VALUE


def scale(twin, context):
    return 1


def made():
    def inner():
        return 2

    return inner


quick = lambda: 3
"""
FILES = {
    "own/__init__.py": "",
    "own/main.py": MAIN,
    "own/shapes.py": "from own import deep\n\n\ndef factor():\n    return deep.VALUE\n",
    "own/deep.py": "VALUE = 1\n",
    "own/unused.py": "VALUE = 1\n",
    "lazily_used/__init__.py": "",
    "lazily_used/offset.py": "VALUE = 1\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own modules, importable."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def _fresh() -> ModuleType:
    """The module as a new process would import it."""
    for name in [n for n in sys.modules if n.partition(".")[0] in ("own", "lazily_used")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return importlib.import_module("own.main")


@pytest.mark.parametrize(
    ("file", "matters"),
    [
        ("own/main.py", True),
        ("own/shapes.py", True),
        ("own/deep.py", True),
        ("own/__init__.py", True),
        ("lazily_used/offset.py", True),
        ("own/unused.py", False),
    ],
)
@pytest.mark.parametrize("name", ["Scale", "scale"])
def test_an_edit_anywhere_it_reaches_changes_the_digest(
    name: str, file: str, matters: bool, project: Path
) -> None:
    before = source_digest(getattr(_fresh(), name))
    assert before == source_digest(getattr(_fresh(), name))
    (project / file).write_text((project / file).read_text() + "\nMORE = 2\n")
    after = source_digest(getattr(_fresh(), name))
    assert after is not None
    assert (after != before) == matters


def test_installed_packages_are_not_followed(project: Path) -> None:
    _fresh()
    files = sources._closure(project / "own/main.py", "own.main", "own")
    assert {f.relative_to(project).as_posix() for f in files} == FILES.keys() - {"own/unused.py"}


@pytest.mark.parametrize("place", ["site-packages", "dist-packages"])
def test_packages_of_another_environment_are_not_followed(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch, place: str
) -> None:
    """A virtual environment may show the system's packages, or a user's own."""
    elsewhere = tmp_path_factory.mktemp("python") / place
    elsewhere.mkdir()
    (elsewhere / "installed_elsewhere.py").write_text("")
    monkeypatch.syspath_prepend(elsewhere)
    with (project / "own/main.py").open("a") as file:
        file.write("\nimport installed_elsewhere\n")
    _fresh()
    files = sources._closure(project / "own/main.py", "own.main", "own")
    assert "installed_elsewhere.py" not in {f.name for f in files}


def test_a_file_that_changed_after_its_import_determines_nothing(project: Path) -> None:
    """Else what the old code computed would be kept under the new code's key."""
    module = _fresh()
    text = (project / "own/main.py").read_text()
    (project / "own/main.py").write_text(text.replace("return 1", "return 1 + 1"))
    assert source_digest(module.scale) is None
    (project / "own/main.py").write_text(text.replace("offset.VALUE", "2 * offset.VALUE"))
    assert source_digest(module.Scale) is None
    (project / "own/main.py").write_text("scale = ")
    assert source_digest(module.scale) is None
    (project / "own/main.py").unlink()
    assert source_digest(module.scale) is None


def test_what_has_no_text_of_its_own_determines_nothing(project: Path) -> None:
    module = _fresh()
    typed: dict = {"__name__": "typed"}
    exec("def scale(twin, context):\n    return twin\n", typed)  # noqa: S102
    for found in (module.made(), module.quick, typed["scale"], len):
        assert source_digest(found) is None


def test_ours_are_known_too() -> None:
    assert source_digest(PruneL1) is not None


@pytest.mark.parametrize(
    ("file", "matters"),
    [
        ("techniques/prune.py", True),
        ("training.py", True),
        ("twin.py", True),
        ("models/tables.py", True),
        ("new_room/idea.py", True),
        ("report/html.py", False),
        ("stages/compress.py", False),
        ("cli/commands.py", False),
    ],
)
def test_the_package_itself(
    file: str, matters: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("one = 1\n")
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "cache" / "sources.py"))
    before = package_digest.__wrapped__()
    (tmp_path / file).write_text("one = 2\n")
    assert (package_digest.__wrapped__() != before) == matters


def test_the_rooms_beside_it_are_there() -> None:
    root = Path(sources.__file__).parents[1]
    assert {n for n in sources.BESIDE if not (root / n).exists()} <= {"server"}
    assert package_digest() == package_digest.__wrapped__()
