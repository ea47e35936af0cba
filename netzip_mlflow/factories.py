"""What a recipe names as module:function: imported, checked, called."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from netzip_mlflow.errors import InputError, Problem, did_you_mean

__all__ = ["FACTORY_PATH", "call", "import_function", "installed", "paths"]

FACTORY_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def import_function(path: str, where: str) -> Callable[..., Any]:
    """The function that "module:function" names; modules of the working folder are found too.

    Args:
        path: "module:function".
        where: the recipe's key, for messages.

    Raises:
        InputError: there is no such module or function, or the module's own code fails.
    """
    if not FACTORY_PATH.fullmatch(path):
        raise InputError(Problem(where, f"{path!r}", "module:function"))
    module_name, _, name = path.partition(":")
    # the script `netzip` does not search the working folder, where a user's module usually lies
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, name, None)
    except (Exception, SystemExit) as error:  # it is anyone's code
        what = f"{module_name} cannot be imported: {_told(error)}"
        raise InputError(Problem(where, what)) from error
    if not callable(function):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        what = f"{module_name} has no function {name!r}"
        raise InputError(Problem(where, what, ", ".join(public), did_you_mean(name, public)))
    return function


def installed(group: str) -> dict[str, str]:
    """Entry points of other packages: name to module:attribute."""
    from importlib.metadata import entry_points

    return {e.name: e.value for e in entry_points(group=group)}


def paths(value: Any) -> frozenset[str]:
    """Every "module:function" in a nested value, as a key or as a text.

    >>> sorted(paths({"a": [{"mine:prune": {"student": "mine:small", "ratio": 0.5}}]}))
    ['mine:prune', 'mine:small']
    """
    if isinstance(value, Mapping):
        return paths([*value.keys(), *value.values()])
    if isinstance(value, list | tuple):
        return frozenset().union(*map(paths, value))
    return frozenset({value} if isinstance(value, str) and FACTORY_PATH.fullmatch(value) else ())


def _told(error: BaseException) -> str:
    """What went wrong in a module that was being imported, and at which of its lines."""
    if isinstance(error, ImportError | SyntaxError):  # they say it all
        return str(error)
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    ran = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_file() and frame.filename not in (__file__, importlib.__file__)
    ]
    if not ran:
        return text
    folder = Path(ran[0].filename).parent  # below it lies what is the user's own
    place = [frame for frame in ran if Path(frame.filename).is_relative_to(folder)][-1]
    return f"{text} ({Path(place.filename).name}, line {place.lineno})"


def call(
    function: Callable[..., Any], arguments: Mapping[str, Any], path: str, section: str
) -> Any:
    """Call a user's function by keywords.

    Raises:
        InputError: it does not take these arguments, or raises something of its own.
    """
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        what = f"{path} cannot be called with {', '.join(arguments) or 'no arguments'}: {error}"
        allowed = f"{path.partition(':')[2]}{inspect.signature(function)}"
        raise InputError(Problem(f"{section}.arguments", what, allowed)) from None
    try:
        return function(**arguments)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # it is anyone's code
        what = f"{path} fails with these arguments: {_told(error)}"
        raise InputError(Problem(f"{section}.arguments", what)) from error
