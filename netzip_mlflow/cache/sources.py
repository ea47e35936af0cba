"""The code that a cached result hangs on, as digests: this package's, and a user's own files."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

__all__ = ["package_digest", "source_digest"]

PACKAGE = "netzip_mlflow"
# what only starts techniques, or looks at their results
BESIDE = frozenset(
    [
        "__main__.py",
        "cli",
        "measuring.py",
        "report",
        "runs",
        "scoring",
        "server",
        "stages",
        "tracking",
    ]
)

# a user's or a system's own packages lie in none of this interpreter's places
INSTALLED = frozenset({"site-packages", "dist-packages"})


@functools.cache
def package_digest(beside: frozenset[str] = BESIDE) -> str:
    """SHA-256 of this package's own source files, without those that change no result."""
    root = Path(__file__).parents[1]
    files = [f for f in root.rglob("*.py") if f.relative_to(root).parts[0] not in beside]
    return _digest({f.relative_to(root).as_posix(): f for f in files})


def source_digest(found: type | Callable[..., Any]) -> str | None:
    """SHA-256 of a user's file and of all files of theirs that it imports, functions included,
    wherever they lie.

    Installed packages and the standard library are left out, but for the package that `found`
    itself is in. None where the source does not determine what is called: it has no file, it was
    made inside a function, or the file has changed since it was imported.
    """
    found = inspect.unwrap(found)
    try:
        file = Path(inspect.getsourcefile(found) or "")
        text = file.read_text(encoding="utf-8")
        compiled = set(_codes(compile(text, str(file), "exec", dont_inherit=True)))
        if "<" in found.__qualname__ or not all(c in compiled for c in _loaded(found, file)):
            return None
        top = found.__module__.partition(".")[0]
        return _digest({name: f for f, name in _closure(file, found.__module__, top).items()})
    except (OSError, TypeError, ValueError, SyntaxError):
        return None


def _digest(files: dict[str, Path]) -> str:
    total = hashlib.sha256()
    for name, file in sorted(files.items()):
        total.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def _loaded(found: type | Callable[..., Any], file: Path) -> Iterator[CodeType]:
    """The code that runs: of a function, or of the methods that a class writes out itself."""
    for member in vars(found).values() if isinstance(found, type) else (found,):
        code = getattr(inspect.unwrap(member), "__code__", None) if callable(member) else None
        if code is not None and (member is found or code.co_filename == str(file)):
            yield code


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _closure(file: Path, module: str, top: str) -> dict[Path, str]:
    """The file and what it imports, at any depth and anywhere in it, with their modules' names."""
    seen: dict[Path, str] = {}
    waiting = [(file, module)]
    while waiting:
        file, module = waiting.pop()
        if file in seen:
            continue
        seen[file] = module
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for name in _imported(ast.parse(file.read_text(encoding="utf-8")), package):
            origin = _origin(name, top)
            if origin is not None:
                waiting.append((origin, name))
    return seen


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Names of modules, some of which may be names inside modules instead."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                name = ".".join(filter(None, [*above, name]))
            if name:
                yield name
                yield from (f"{name}.{alias.name}" for alias in node.names)


def _origin(name: str, top: str) -> Path | None:
    """The file of a module that is a user's own; None for any other, and for what is no module."""
    first = name.partition(".")[0]
    if first == PACKAGE:
        return None
    try:  # the first part alone is found without importing anything
        spec = importlib.util.find_spec(first)
        if spec is None or (first != top and _is_installed(spec.origin)):
            return None
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    return origin if origin is not None and origin.suffix == ".py" and origin.is_file() else None


def _is_installed(origin: str | None) -> bool:
    if origin is None:  # a folder without __init__.py
        return False
    if origin in ("built-in", "frozen") or INSTALLED & set(Path(origin).parts):
        return True
    return any(map(Path(origin).is_relative_to, _places()))


@functools.cache
def _places() -> frozenset[str]:
    return frozenset(map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")))
