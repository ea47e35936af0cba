"""A data set by a user's own function, named as module:function."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from netzip_mlflow.data.arrays import from_arrays
from netzip_mlflow.data.source import Source
from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.recipe import DataSpec

__all__ = ["FACTORY_PATH", "call", "import_function", "load"]

FACTORY_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def load(spec: DataSpec) -> Source:
    """Call `spec.factory` with `spec.arguments`.

    It returns a `Source`, or the mapping of arrays that `arrays.from_arrays` describes.

    Raises:
        InputError: the function cannot be imported, does not take these arguments, or returns
            something else. What the function itself raises passes through.
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


def import_function(path: str, where: str) -> Callable[..., Any]:
    """The function that "module:function" names; modules of the working folder are found too.

    Args:
        path: "module:function".
        where: the recipe's key, for messages.

    Raises:
        InputError: there is no such module or function.
    """
    if not FACTORY_PATH.fullmatch(path):
        raise InputError(Problem(where, f"{path!r}", "module:function"))
    module_name, _, name = path.partition(":")
    # the script `netzip` does not search the working folder, where a user's module usually lies
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise InputError(Problem(where, f"{module_name} cannot be imported: {error}")) from error
    function = getattr(module, name, None)
    if not callable(function):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        what = f"{module_name} has no function {name!r}"
        raise InputError(Problem(where, what, ", ".join(public), did_you_mean(name, public)))
    return function


def call(
    function: Callable[..., Any], arguments: Mapping[str, Any], path: str, section: str
) -> Any:
    """Call a user's function by keywords.

    Raises:
        InputError: it does not take these arguments; what it raises itself passes through.
    """
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        what = f"{path} cannot be called with {', '.join(arguments) or 'no arguments'}: {error}"
        allowed = f"{path.partition(':')[2]}{inspect.signature(function)}"
        raise InputError(Problem(f"{section}.arguments", what, allowed)) from None
    return function(**arguments)
