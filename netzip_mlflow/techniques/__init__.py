"""Techniques: what compresses a network. One file each; `registry.TABLE` lists them.

A technique is a frozen dataclass whose fields are its parameters (`parameter(...)` holds their
bounds as data), with `traits` that say what it is, and one method `apply`. To add one: a file, a
line in the table, a test. Third parties: the entry-point group `netzip_mlflow.techniques`, or
`module:attribute` in a recipe, naming such a class or a plain function `(twin, context, **kwargs)`.
"""

from netzip_mlflow.techniques.chains import chain, check, implied, label, problems
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import (
    Bounds,
    Range,
    parameter,
    parameter_problems,
    unread,
)
from netzip_mlflow.techniques.protocol import Technique, Traits
from netzip_mlflow.techniques.registry import TABLE, find, installed, names

__all__ = [
    "TABLE",
    "Bounds",
    "Context",
    "Range",
    "Technique",
    "Traits",
    "chain",
    "check",
    "find",
    "implied",
    "installed",
    "label",
    "names",
    "parameter",
    "parameter_problems",
    "problems",
    "unread",
]
