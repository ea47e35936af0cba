"""What executes a deployable: a table of runtimes, one protocol; no other room names a runtime."""

from netzip_mlflow.runtimes.protocol import Executed, Runtime, Session
from netzip_mlflow.runtimes.registry import (
    DEFAULT,
    PACKAGES,
    TABLE,
    check,
    evaluator,
    find,
    names,
    problems,
)

__all__ = [
    "DEFAULT",
    "PACKAGES",
    "TABLE",
    "Executed",
    "Runtime",
    "Session",
    "check",
    "evaluator",
    "find",
    "names",
    "problems",
]
