"""What pydantic found wrong with a recipe, in our words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from netzip_mlflow.errors import Problem, did_you_mean
from netzip_mlflow.recipe import schema

__all__ = ["problem"]


def problem(error: Any) -> Problem:
    """A pydantic error in our words: where, what was given, what is allowed, did-you-mean."""
    where = _where(error["loc"])
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        fields = _fields_at(error["loc"][:-1])
        hint = did_you_mean(str(error["loc"][-1]), fields)
        return Problem(where, "unknown key", ", ".join(fields), hint)
    if kind == "missing":
        return Problem(where, "is missing")
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(given, dict):
        return Problem(where, message)
    allowed = message.removeprefix("Input should be ")
    hint = did_you_mean(given, re.findall(r"'([^']*)'", allowed)) if isinstance(given, str) else ""
    return Problem(where, f"{given!r} is not allowed", allowed, hint)


def _where(location: Sequence[str | int]) -> str:
    """`('candidates', 'small', 1, 'finetune')` as `candidates.small[1].finetune`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not _UNION_MEMBER.match(part):
            text += f".{part}" if text else part
    return text


# pydantic names the member of a union it tried; to a reader that is no part of the path
_UNION_MEMBER = re.compile(r"^(float|int|constrained-\w+|SplitRule|SearchAuto|SearchChain)$")


def _fields_at(location: Sequence[str | int]) -> list[str]:
    model: Any = schema.Recipe
    for part in location:
        if part == "SplitRule":
            model = schema.SplitRule
        elif isinstance(part, str) and hasattr(model, "model_fields"):
            field = model.model_fields.get(part)
            found = (
                re.findall(r"\b(\w+Spec|Augment|Weights|SearchLimits)\b", str(field.annotation))
                if field
                else []
            )
            model = getattr(schema, found[0]) if found else None
    return list(model.model_fields) if hasattr(model, "model_fields") else []
