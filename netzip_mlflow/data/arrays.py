"""A source made of named arrays: x_train, y_train, x_test, y_test and the like."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from netzip_mlflow.data.source import PARTS, Part, Source
from netzip_mlflow.errors import InputError, Problem, did_you_mean

__all__ = ["from_arrays"]

CHANNELS = (1, 2, 3, 4)


def from_arrays(
    arrays: Mapping[str, np.ndarray], *, name: str, groups: str | None = None, origin: str = ""
) -> Source:
    """Make a source of arrays by name.

    Args:
        arrays: for each part of train, validation and test that there is, ``x_<part>`` uint8
            (n, H, W, C) or (n, H, W), and ``y_<part>``, targets (n, ...); optionally ``classes``,
            the names of the classes, else integers (n,) are labels 0 .. largest.
        name: of the source.
        groups: a column: ``<groups>_<part>`` of shape (n,), see `Part.groups`.
        origin: what errors name, where that is not the name.

    Raises:
        InputError: naming every array that is wrong.
    """
    problems = _unknown(arrays)
    names = [part for part in PARTS if f"x_{part}" in arrays or f"y_{part}" in arrays]
    for part in names:
        for key in (f"x_{part}", f"y_{part}"):
            if key not in arrays:
                problems.append(Problem(key, "is missing", hint=f"it holds: {_listing(arrays)}"))
    if "train" not in names:
        problems.append(Problem("x_train", "is missing", hint=f"it holds: {_listing(arrays)}"))
    if groups is not None:
        problems += _group_problems(arrays, groups, names)
    if problems:
        raise InputError(problems, origin or name)

    parts: dict[str, Part] = {}
    for part in names:
        images = _images(arrays, f"x_{part}", problems)
        column = None if groups is None else arrays.get(f"{groups}_{part}")
        parts[part] = Part(images, _targets(arrays[f"y_{part}"]), column)
    if problems:
        raise InputError(problems, origin or name)
    return Source(name, _classes(arrays, parts), parts)


def _listing(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _unknown(arrays: Mapping[str, np.ndarray]) -> list[Problem]:
    allowed = [f"{axis}_{part}" for part in PARTS for axis in "xy"]
    return [
        Problem(key, "unknown array", ", ".join(allowed), did_you_mean(key, allowed))
        for key in sorted(arrays)
        if key.startswith(("x_", "y_")) and key not in allowed
    ]


def _group_problems(
    arrays: Mapping[str, np.ndarray], groups: str, names: list[str]
) -> list[Problem]:
    columns = [f"{groups}_{part}" for part in names]
    if not any(column in arrays for column in columns):
        what = f"no column {groups!r}"
        hint = f"it would be {' or '.join(columns)}; it holds: {_listing(arrays)}"
        return [Problem("data.groups", what, hint=hint)]
    return [
        Problem(column, f"has shape {arrays[column].shape}", f"({len(arrays[f'y_{part}'])},)")
        for part, column in zip(names, columns, strict=True)
        if column in arrays and arrays[column].shape != arrays[f"y_{part}"].shape
    ]


def _images(arrays: Mapping[str, np.ndarray], key: str, problems: list[Problem]) -> np.ndarray:
    x = np.asarray(arrays[key])
    wanted = "uint8 of shape (n, H, W, C) or (n, H, W)"
    if x.dtype != np.uint8:
        hint = "values from 0 to 255; the network's normalisation is model.mean and model.std"
        problems.append(Problem(key, f"has dtype {x.dtype}", wanted, hint))
    if x.ndim == 3:
        x = x[..., np.newaxis]
    if x.ndim != 4:
        problems.append(Problem(key, f"has shape {x.shape}", wanted))
    elif x.shape[-1] not in CHANNELS:
        hint = "channels come last" if x.shape[1] in CHANNELS else ""
        what = f"has {x.shape[-1]} channels (shape {x.shape})"
        problems.append(Problem(key, what, "1 to 4 channels, last", hint))
    elif 0 in x.shape[:3]:
        problems.append(Problem(key, f"is empty (shape {x.shape})"))
    elif len(x) != len(np.atleast_1d(arrays[f"y_{key[2:]}"])):
        n = len(np.atleast_1d(arrays[f"y_{key[2:]}"]))
        problems.append(Problem(key, f"has {len(x)} images, but y_{key[2:]} has {n} targets"))
    return x


def _targets(y: np.ndarray) -> np.ndarray:
    y = np.atleast_1d(y)
    return y.astype(np.int64) if _are_labels(y) else y


def _are_labels(targets: np.ndarray) -> bool:
    return targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)


def _classes(arrays: Mapping[str, np.ndarray], parts: Mapping[str, Part]) -> tuple[str, ...]:
    if "classes" in arrays:
        return tuple(str(c) for c in np.asarray(arrays["classes"]).ravel())
    targets = [np.asarray(part.targets) for part in parts.values()]
    if not all(map(_are_labels, targets)):
        return ()
    return tuple(str(c) for c in range(max(int(each.max()) for each in targets) + 1))
