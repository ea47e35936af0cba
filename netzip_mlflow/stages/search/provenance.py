"""What a study's figures depend on: recipe, data, weights, code; not where any of it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netzip_mlflow import techniques
from netzip_mlflow.cache.sources import BESIDE, package_digest, source_digest
from netzip_mlflow.deployable import file_digest
from netzip_mlflow.errors import InputError
from netzip_mlflow.factories import FACTORY_PATH, import_function
from netzip_mlflow.recipe import SearchSpec, locate
from netzip_mlflow.runs.baseline import from_uri
from netzip_mlflow.search.binding import PACKAGE

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.tasks import Task

__all__ = ["parts"]

UNKNOWN = "no file determines it"


def parts(recipe: Recipe, task: Task, say: Callable[[str], None]) -> dict[str, str]:
    """Digests by what they are of, as `search.binding.bind` takes them.

    Raises:
        InputError: weights or code that cannot be read.
    """
    code = dict(_code(recipe))
    for name in (name for name, digest in code.items() if digest == UNKNOWN):
        say(f"{name}: {UNKNOWN}, so that the study does not notice when it changes")
    return {
        "recipe": _recipe(recipe),
        "data": task.digest,
        "weights": _weights(recipe, task),
        PACKAGE: package_digest(BESIDE - {"scoring"}),
        **code,
    }


def _recipe(recipe: Recipe) -> str:
    """Without what may change while a study lasts, and what the other digests are of."""
    given = recipe.model_dump(
        mode="json", exclude={"data": True, "model": {"weights", "uri", "allow"}}
    )
    for key in ("trials", "timeout", "trial_timeout"):
        del given["search"][key]
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]


def _weights(recipe: Recipe, task: Task) -> str:
    """Those that are given, as they are: neither an alias nor a path says which."""
    model = recipe.model
    if model.uri is not None:
        return from_uri(model.uri, task, recipe.code()).digest()
    if model.weights is None or model.weights == "pretrained":
        return model.weights or ""
    return file_digest(locate(model.weights, "model.weights"))


def _code(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What the recipe names of a user's: `module:function`, techniques of a package."""
    spec = recipe.search or SearchSpec()
    named = {*_texts(spec.model_dump(mode="json")), *_texts(dict(recipe.candidates))}
    factories = {recipe.task, recipe.data.factory, recipe.model.factory} - {None}
    for text in sorted(filter(FACTORY_PATH.fullmatch, {*named, *factories})):
        try:
            yield text, source_digest(import_function(text, text)) or UNKNOWN
        except InputError:  # a technique's parameter may be any text
            if text in factories:
                raise
    for name in techniques.names():
        found = techniques.find(name)
        wanted = name in named or (spec.space == "auto" and found.traits.searched)
        if wanted and found.__module__.partition(".")[0] != "netzip_mlflow":
            yield name, source_digest(found) or UNKNOWN


def _texts(value: Any) -> Iterator[str]:
    """Every text in a nested value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)
