"""A recipe's file as a plain mapping: YAML, overrides, shorthand, paths and their variables."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.recipe import syntax

__all__ = ["as_written", "locate", "read", "variables"]

PATHS = (("data", "path"), ("model", "weights"))  # the keys that a variable is expanded in
NO_PATH = "pretrained"  # what `model.weights` may say instead of a file


def read(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[Problem]]:
    """A recipe's raw mapping: overridden, shorthand written out, relative paths anchored.

    Relative paths (`data.path`, `model.weights`) are taken from the recipe's folder. Their
    variables stay as they are written, until `locate`. What is wrong with an override, a variable
    or a path comes as problems, and the rest is read all the same.

    Raises:
        InputError: there is no mapping to read.
    """
    file = Path(path)
    try:
        with file.open("rb") as opened:  # what is too large is not read to its end
            raw = syntax.parse(opened.read(syntax.LIMIT + 1))
    except FileNotFoundError:
        near = sorted(p.name for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
        allowed = f"the recipes there: {', '.join(near)}" if near else "an existing file"
        hint = did_you_mean(file.name, near)
        raise InputError(Problem("", "no such file", allowed, hint), str(path)) from None
    except syntax.Unreadable as error:
        raise InputError(str(error), str(path)) from None
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise InputError(f"cannot be read: {error}", str(path)) from None
    if not isinstance(raw, dict):
        raise InputError(f"must be a mapping of keys, is {type(raw).__name__}", str(path))
    problems: list[Problem] = []
    _expand_shorthand(raw)  # before, so that an override reaches into a chain; after, for its own
    for override in overrides:
        _override(raw, override, problems)
    _expand_shorthand(raw)
    problems += _misplaced(raw, "")
    _anchor_paths(raw, file.parent, problems)
    return raw, problems


def _override(raw: dict[str, Any], text: str, problems: list[Problem]) -> None:
    """Set what `key.path=value` names; sections that are absent are made."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip() or syntax.NO_TEXT.search(key):
        problems.append(Problem(f"--set {text!r}", "must be key.path=value"))
        return
    if key.count(".") >= syntax.DEPTH:
        problems.append(Problem(f"--set {text!r}", f"a path of over {syntax.DEPTH} keys"))
        return
    try:
        parsed = syntax.parse(value)
        *parents, last = key.strip().split(".")
        place: Any = raw
        for part in parents:
            step = _step(place, part)
            if isinstance(place, dict) and place.get(step) is None:
                place[step] = {}
            place = place[step]
        place[_step(place, last)] = parsed
    except syntax.Unreadable as error:
        problems.append(Problem(f"--set {text!r}", f"the value {error}"))
    except LookupError as error:
        problems.append(Problem(f"--set {text!r}", str(error.args[0])))


def _step(place: Any, part: str) -> str | int:
    """The part of a path as a key of `place`.

    Raises:
        LookupError: `place` has no parts, or is a list without that position.
    """
    if isinstance(place, list):
        if not part.isdecimal() or len(part) > 9 or int(part) >= len(place):
            allowed = f"0 to {len(place) - 1}" if place else "none, it is empty"
            raise LookupError(f"{part!r} is no position in the list; allowed: {allowed}")
        return int(part)
    if not isinstance(place, dict):
        raise LookupError(f"{part!r} lies below a plain value")  # noqa: TRY004 (the path is wrong)
    return part


def _expand_shorthand(raw: dict[str, Any]) -> None:
    """Write `half` out as `half: {}`, wherever a chain's entry has no parameters."""
    candidates = raw.get("candidates")
    if not isinstance(candidates, dict):
        return
    for name, given in candidates.items():
        chain = [given] if isinstance(given, str | dict) else given
        if isinstance(chain, list):
            candidates[name] = [_entry(entry) for entry in chain]


def _entry(entry: Any) -> Any:
    if isinstance(entry, str):
        return {entry: {}}
    if isinstance(entry, dict):
        return {k: {} if v is None else v for k, v in entry.items()}
    return entry


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_located: dict[str, str] = {}  # a place, as the recipe writes it


def variables(path: str) -> list[str]:
    """The environment variables that a path names."""
    return _VARIABLE.findall(path)


def locate(path: str, where: str) -> Path:
    """Where a recipe's path is on this machine: its variables and `~` are replaced.

    Args:
        where: the recipe's key, for messages.

    Raises:
        InputError: a variable is not set, or nobody's home is meant.
    """
    if unset := [name for name in variables(path) if name not in os.environ]:
        what = f"{path!r} names the environment variable {unset[0]}, which is not set"
        raise InputError(Problem(where, what))
    try:
        place = Path(_VARIABLE.sub(lambda m: os.environ[m.group(1)], path)).expanduser()
        place.resolve()
        place.exists()
    # a name that is too long; no such user's home; a zero byte
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(Problem(where, f"{path!r} is no path: {error}")) from None
    # of a relative place, or a root, the name is a word that stands elsewhere too
    if variables(path) and len(place.parts) > 1 and place.is_absolute():
        _located[str(place)] = path
    return place


def as_written(text: str) -> str:
    """A text in which places that `locate` gave are written as in their recipe: for what is kept
    where others read it."""
    for place, path in _located.items():
        whole = rf"(?<![\w./-]){re.escape(place)}(?![\w-])"
        text = re.sub(whole, lambda _, path=path: path, text)
    return text


def _anchor_paths(raw: dict[str, Any], folder: Path, problems: list[Problem]) -> None:
    for section, key in PATHS:
        part = raw.get(section)
        value = part.get(key) if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(value, str) or value == NO_PATH:
            continue
        try:
            place = locate(value, f"{section}.{key}")
        except InputError as error:
            problems += error.problems
        else:
            if not variables(value):
                part[key] = str((folder / place).resolve())
            elif not place.is_absolute():
                part[key] = str(folder.resolve() / value)


def _misplaced(value: Any, where: str) -> list[Problem]:
    """Variables where none is expanded: elsewhere than in paths, their text would be a value."""
    if isinstance(value, dict):
        inside = [(f"{where}.{k}" if where else str(k), v) for k, v in value.items()]
    elif isinstance(value, list):
        inside = [(f"{where}[{i}]", v) for i, v in enumerate(value)]
    else:
        keys = [f"{section}.{key}" for section, key in PATHS]
        if where in keys or not isinstance(value, str) or not variables(value):
            return []
        what = f"{value!r} names an environment variable, which is expanded in paths alone"
        return [Problem(where, what, ", ".join(keys))]
    return [problem for place, v in inside for problem in _misplaced(v, place)]
