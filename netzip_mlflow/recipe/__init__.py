"""The recipe: one YAML file, all that a run depends on.

`load` reads, expands, overrides and validates it, and reports every problem at once.
The schema checks shape only: candidates stay plain mappings, and other rooms add their own
checks (names of techniques, models, data sets) to the same list of problems.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.recipe.problems import problem
from netzip_mlflow.recipe.reading import as_written, locate, read, variables
from netzip_mlflow.recipe.schema import (
    NAME_LIMIT,
    Augment,
    DataSpec,
    LatencySpec,
    MeasureSpec,
    ModelSpec,
    Recipe,
    ScoreSpec,
    SearchLimits,
    SearchSpec,
    SplitRule,
    TrainSpec,
    Weights,
)

__all__ = [
    "Augment",
    "DataSpec",
    "LatencySpec",
    "MeasureSpec",
    "ModelSpec",
    "Recipe",
    "ScoreSpec",
    "SearchLimits",
    "SearchSpec",
    "SplitRule",
    "TrainSpec",
    "Weights",
    "as_written",
    "load",
    "locate",
    "read",
    "variables",
]

CANDIDATE_NAME = re.compile(r"[a-z0-9_-]+")
RESERVED = re.compile(r"baseline|trial-[0-9]+")

Check = Callable[[Mapping[str, Any]], Iterable[Problem]]


def load(path: str | Path, overrides: Sequence[str] = (), checks: Sequence[Check] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: the YAML file.
        overrides: ``key.path=value`` texts; values are YAML.
        checks: further checks of the raw mapping; their problems join the schema's.

    Raises:
        InputError: naming every problem at once.
    """
    raw, unread = read(path, overrides)
    problems: list[Problem] = []
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        problems += [problem(e) for e in error.errors()]
    problems += _candidate_names(raw)
    for check in checks:
        problems += check(raw)
    if unread or problems or recipe is None:
        raise InputError(_without_doubles(unread, problems), source=str(path))
    return recipe


def _candidate_names(raw: Mapping[str, Any]) -> list[Problem]:
    candidates = raw.get("candidates")
    if not isinstance(candidates, dict):
        return []
    checked = ((f"candidates.{name}", str(name)) for name in candidates)
    return [Problem(where, *wrong) for where, name in checked if (wrong := _name_fault(name))]


def _name_fault(name: str) -> tuple[str, str] | None:
    """What is wrong with a candidate's name, and what is allowed."""
    if RESERVED.fullmatch(name):
        return "the name is reserved", "any but baseline, and trial-<number> (a search's own)"
    if not CANDIDATE_NAME.fullmatch(name):
        return "not a candidate's name", "letters a-z, 0-9, _ and -"
    if len(name) > NAME_LIMIT:
        return f"a name of {len(name)} characters", f"{NAME_LIMIT} at most"
    return None


def _without_doubles(unread: list[Problem], further: Iterable[Problem]) -> list[Problem]:
    """Each problem once; none that only follows from what could not be read at its place."""
    unreadable = {p.where for p in unread}
    kept = [*unread, *(p for p in further if p.where not in unreadable)]
    return list({str(p): p for p in kept}.values())
