"""What a recipe names as module:function: imported, checked, called."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from netzip_mlflow.errors import InputError, Problem, did_you_mean

__all__ = ["FACTORY_PATH", "call", "import_function"]

FACTORY_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


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
