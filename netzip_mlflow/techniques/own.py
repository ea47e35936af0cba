"""A user's own technique: any function `(twin, context, **parameters)`, named in a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.techniques import Context, Technique, Traits
from netzip_mlflow.twin import Twin

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Deployable

__all__ = ["own"]


def own(name: str, function: Callable[..., Twin | Deployable]) -> type[Technique]:
    """A technique's class around a function; one that ends a chain has `kind = "deploy"`."""
    summary = (function.__doc__ or "a function of your own").strip().splitlines()[0]
    kind: Literal["float", "deploy"] = getattr(function, "kind", "float")

    @dataclasses.dataclass(frozen=True, init=False)
    class Own:
        traits: ClassVar[Traits] = Traits("own", kind, summary, size_known=False)
        open_parameters: ClassVar[bool] = True
        parameters: dict[str, Any]

        def __init__(self, **parameters: Any) -> None:
            object.__setattr__(self, "parameters", parameters)

        def label(self) -> str:
            return name.partition(":")[2] or name

        def apply(self, twin: Twin, context: Context) -> Twin | Deployable:
            result = function(twin.copy(), context, **self.parameters)
            if kind == "float" and not isinstance(result, Twin):
                raise NetzipError(f"{name} must return a Twin, returned {type(result).__name__}")
            if isinstance(result, Twin):
                result = result.replace(chain=(*twin.chain, self.label()))
            return result

    return Own
