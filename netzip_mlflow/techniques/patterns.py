"""Layers named in a recipe: names or shell patterns, separated by commas."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from netzip_mlflow.errors import NetzipError, Problem, did_you_mean

__all__ = ["chosen"]

SHOWN = 12  # names in a message


def chosen(text: str | None, names: Sequence[str], where: str) -> list[str]:
    """The names that some pattern of the text matches, in the order of `names`; none for None.

    Raises:
        NetzipError: a pattern that matches no name; `where` says which parameter it stands in.
    """
    patterns = [part.strip() for part in (text or "").split(",") if part.strip()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            allowed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            what, hint = f"{pattern!r} is no layer of the network", did_you_mean(pattern, names)
            raise NetzipError(str(Problem(where, what, f"{allowed}, or patterns of them", hint)))
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
