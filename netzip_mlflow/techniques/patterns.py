"""Layers named in a recipe: names or shell patterns, separated by commas."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from netzip_mlflow.errors import NetzipError, did_you_mean

__all__ = ["chosen"]


def chosen(text: str, names: Sequence[str], where: str) -> list[str]:
    """The names that some pattern of the text matches, in the order of `names`.

    Raises:
        NetzipError: a pattern that matches no name; `where` says which parameter it stands in.
    """
    patterns = [part.strip() for part in text.split(",") if part.strip()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            hint = did_you_mean(pattern, names)
            raise NetzipError(
                f"{where}: {pattern!r} matches no layer; allowed: {', '.join(names)}"
                + (f" ({hint})" if hint else "")
            )
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
