"""Networks by name, by a user's own function, and their weights.

A network is one file with a function `(num_classes, channels, size) -> nn.Module` and one line in
`catalogue.TABLE`. torch is imported when a network is built, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netzip_mlflow.models.catalogue import TABLE, build, build_factory, check, names

if TYPE_CHECKING:
    from netzip_mlflow.models.weights import load_pretrained, load_weights, missing

__all__ = [
    "TABLE",
    "build",
    "build_factory",
    "check",
    "load_pretrained",
    "load_weights",
    "missing",
    "names",
]


def __getattr__(name: str) -> Any:
    if name in ("load_pretrained", "load_weights", "missing"):
        from netzip_mlflow.models import weights

        return getattr(weights, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
