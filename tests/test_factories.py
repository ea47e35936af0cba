"""module:function of a user: imported from the working folder too, called by keywords."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netzip_mlflow.errors import InputError
from netzip_mlflow.factories import FACTORY_PATH, call, import_function

MODULE = """
NUMBER = 3
_hidden = print

def make(n, seed=0):
    return [seed] * n

def makes():
    return None

def failing():
    raise LookupError("the user's own")
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "made_here.py").write_text(MODULE)
    (tmp_path / "broken_here.py").write_text("import surely_not_installed")
    (tmp_path / "garbled_here.py").write_text("def f(:")
    (tmp_path / "dividing_here.py").write_text("RATE = 3\n\nSHARE = RATE / 0\n")
    (tmp_path / "leaning_here.py").write_text("import os\nimport dividing_here\n")
    (tmp_path / "reading_here.py").write_text("import json\n\n\nSETTINGS = json.loads('{')\n")
    (tmp_path / "script_here.py").write_text("import sys\nsys.exit('usage: script_here FILE')\n")
    (tmp_path / "bare_here.py").write_text("raise RuntimeError\n")
    (tmp_path / "package_here").mkdir()
    (tmp_path / "package_here" / "inner.py").write_text("def f(): return 'inner'")
    monkeypatch.chdir(tmp_path)
    # as in the script `netzip`, whose search path holds no working folder
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield
    for name in ("made_here", "broken_here", "garbled_here", "package_here", "package_here.inner"):
        sys.modules.pop(name, None)


def test_a_module_of_the_working_folder_is_found() -> None:
    assert import_function("made_here:make", "data.factory")(2, seed=1) == [1, 1]
    assert import_function("package_here.inner:f", "data.factory")() == "inner"


def test_installed_modules_come_first(tmp_path: Path) -> None:
    (tmp_path / "fractions.py").write_text("def gcd(a, b): return 'not the real one'")
    assert import_function("fractions:Fraction", "x")(2, 4).denominator == 2


def test_the_search_path_grows_once(tmp_path: Path) -> None:
    for _ in range(3):
        import_function("made_here:make", "data.factory")
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("made_here", "model.factory: 'made_here'; allowed: module:function"),
        ("made_here:", "model.factory: 'made_here:'; allowed: module:function"),
        ("made here:make", "model.factory: 'made here:make'; allowed: module:function"),
        ("../made_here:make", "allowed: module:function"),
        ("mde_here:make", "model.factory: mde_here cannot be imported: No module named"),
        ("broken_here:make", "broken_here cannot be imported: No module named 'surely_not_ins"),
        ("garbled_here:f", "garbled_here cannot be imported: invalid syntax"),
        (
            "dividing_here:f",
            r"^model.factory: dividing_here cannot be imported: ZeroDivision.* \(div.*, line 3\)$",
        ),
        ("leaning_here:f", r"ZeroDivisionError: .* \(dividing_here\.py, line 3\)$"),
        ("reading_here:f", r"JSONDecodeError: .* \(reading_here\.py, line 4\)$"),
        ("script_here:f", r"SystemExit: usage: script_here FILE \(script_here\.py, line 2\)$"),
        ("bare_here:f", r"bare_here cannot be imported: RuntimeError \(bare_here\.py, line 1\)$"),
        (
            "made_here:mkae",
            "made_here has no function 'mkae'; allowed: make, makes, failing .did you mean 'make'",
        ),
        ("made_here:NUMBER", "made_here has no function 'NUMBER'"),
    ],
)
def test_a_path_that_names_no_function_is_refused(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_function(path, "model.factory")


def test_a_call_by_keywords() -> None:
    function = import_function("made_here:make", "x")
    assert call(function, {"n": 2}, "made_here:make", "data") == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "cannot be called with no arguments: missing a required argument: 'n'"),
        ({"n": 1, "sed": 2}, "cannot be called with n, sed: got an unexpected keyword argument"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict, message: str) -> None:
    function = import_function("made_here:make", "x")
    with pytest.raises(InputError) as caught:
        call(function, arguments, "made_here:make", "data")
    assert str(caught.value).startswith(f"data.arguments: made_here:make {message}")
    assert "; allowed: make(n, seed=0)" in str(caught.value)


def test_what_the_function_raises_passes_through() -> None:
    function = import_function("made_here:failing", "x")
    with pytest.raises(InputError, match=r"made_here:failing fails .*LookupError: .*own"):
        call(function, {}, "made_here:failing", "data")


@pytest.mark.parametrize("path", ["a:b", "a.b.c:d_e", "_a:B2"])
def test_the_shape_of_a_path(path: str) -> None:
    assert FACTORY_PATH.fullmatch(path)


@pytest.mark.parametrize("path", ["a", "a:b:c", "a.:b", ".a:b", "a-b:c", "1a:b", "a:1b", "a:b.c"])
def test_what_is_no_path(path: str) -> None:
    assert not re.fullmatch(FACTORY_PATH, path)
