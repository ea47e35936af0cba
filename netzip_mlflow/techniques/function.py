"""A user's own technique: any function `(twin, context, **parameters)`, named in a recipe."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from netzip_mlflow.deployable import Deployable
from netzip_mlflow.errors import NetzipError, Problem
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.protocol import Technique, Traits
from netzip_mlflow.twin import Twin

__all__ = ["own"]


def own(name: str, function: Callable[..., Twin | Deployable]) -> type[Technique]:
    """A technique's class around a function; one that ends a chain has `kind = "deploy"`."""
    summary = (function.__doc__ or "a function of your own").strip().splitlines()[0]
    kind: Literal["float", "deploy"] = getattr(function, "kind", "float")

    @dataclasses.dataclass(frozen=True, init=False)
    class Own:
        traits: ClassVar[Traits] = Traits("own", kind, summary, size_known=False, searched=False)
        function: ClassVar[Callable[..., Any]]
        parameters: dict[str, Any]

        def __init__(self, **parameters: Any) -> None:
            object.__setattr__(self, "parameters", parameters)

        @staticmethod
        def problems(given: Mapping[str, Any], where: str) -> list[Problem]:
            """What of the parameters the function does not take: it has no bounds to ask."""
            try:
                inspect.signature(function).bind(None, None, **given)
            except TypeError as error:
                return [
                    Problem(where, str(error), f"{function.__name__}{inspect.signature(function)}")
                ]
            return []

        def label(self) -> str:
            return name.partition(":")[2] or name

        def apply(self, twin: Twin, context: Context) -> Twin | Deployable:
            result = function(twin.copy(), context, **self.parameters)
            wanted = Twin if kind == "float" else Deployable
            if not isinstance(result, wanted):
                raise NetzipError(
                    f"{name} must return a {wanted.__name__}, returned {type(result).__name__}"
                )
            if isinstance(result, Twin):
                result = result.replace(chain=(*twin.chain, self.label()))
            return result

    Own.function = staticmethod(function)  # whose source decides the result
    return Own
