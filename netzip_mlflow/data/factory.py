"""A data set by a user's own function, named as module:function."""

from __future__ import annotations

from collections.abc import Mapping

from netzip_mlflow.data.arrays import from_arrays
from netzip_mlflow.data.source import Source
from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.factories import call, import_function
from netzip_mlflow.recipe import DataSpec

__all__ = ["load"]


def load(spec: DataSpec) -> Source:
    """Call `spec.factory` with `spec.arguments`.

    It returns a `Source`, or the mapping of arrays that `arrays.from_arrays` describes.

    Raises:
        InputError: the function cannot be imported, does not take these arguments, fails, or
            returns something else.
    """
    path = spec.factory or ""
    made = call(import_function(path, "data.factory"), spec.arguments, path, "data")
    if isinstance(made, Source):
        if spec.groups is not None:
            what = f"{path} returns a Source, whose parts carry their groups themselves"
            raise InputError(Problem("data.groups", what, "no groups"))
        return made
    if isinstance(made, Mapping):
        return from_arrays(made, name=path, groups=spec.groups)
    what = f"{path} returned a {type(made).__name__}"
    allowed = "a netzip_mlflow.data.Source, or a mapping of arrays x_train, y_train, ..."
    raise InputError(Problem("data.factory", what, allowed))
