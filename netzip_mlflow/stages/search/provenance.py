"""What a study's figures depend on: recipe, data, weights, code; not where any of it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from netzip_mlflow import techniques
from netzip_mlflow.cache.sources import BESIDE, package_digest, source_digest
from netzip_mlflow.deployable import file_digest
from netzip_mlflow.errors import InputError
from netzip_mlflow.factories import import_function, paths
from netzip_mlflow.recipe import SearchSpec, locate
from netzip_mlflow.search.binding import PACKAGE

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.tasks import Task
    from netzip_mlflow.twin import Twin

__all__ = ["parts"]

UNKNOWN = "no file determines it"


def parts(
    recipe: Recipe, task: Task, network: Callable[[], Twin], say: Callable[[str], None]
) -> dict[str, str]:
    """Digests by what they are of, as `search.binding.bind` takes them.

    Args:
        network: gives what training starts from, which only `model.uri` is bound by.

    Raises:
        InputError: weights or code that cannot be read.
    """
    code = dict(_code(recipe))
    for name in (name for name, digest in code.items() if digest == UNKNOWN):
        say(f"{name}: {UNKNOWN}, so that the study does not notice when it changes")
    return {
        "recipe": _recipe(recipe),
        "data": task.digest,
        "weights": _weights(recipe, network),
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


def _weights(recipe: Recipe, network: Callable[[], Twin]) -> str:
    """Those that are given, as they are: neither an alias nor a path says which."""
    model = recipe.model
    if model.uri is not None:
        return network().digest()
    if model.weights is None or model.weights == "pretrained":
        return model.weights or ""
    return file_digest(locate(model.weights, "model.weights"))


def _code(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What the recipe names of a user's: `module:function`, techniques of a package."""
    factories = paths([recipe.task, recipe.data.factory, recipe.model.factory])
    for text in sorted(factories | recipe.code()):
        try:
            yield text, source_digest(import_function(text, text)) or UNKNOWN
        except InputError:  # a technique's parameter may be any text
            if text in factories:
                raise
    automatic = (recipe.search or SearchSpec()).space == "auto"
    written = json.dumps(recipe.model_dump(mode="json", include={"candidates", "search"}))
    for name, path in techniques.installed().items():
        if json.dumps(name) in written or (automatic and techniques.find(name).traits.searched):
            yield name, source_digest(import_function(path, name)) or UNKNOWN
