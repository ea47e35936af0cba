"""A user's own technique: any function `(twin, context, **parameters)`, named in a recipe."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from netzip_mlflow.deployable import Deployable
from netzip_mlflow.errors import NetzipError, Problem
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.protocol import SizeBasis, Technique, Traits
from netzip_mlflow.twin import Twin

__all__ = ["technique_of"]


def technique_of(path: str, function: Callable[..., Twin | Deployable]) -> type[Technique]:
    """A technique's class around a function; one that ends a chain has `kind = "deploy"`.

    Args:
        path: "module:function", or the name of its entry point.
    """
    summary = (function.__doc__ or "a function of your own").strip().splitlines()[0]
    kind: Literal["float", "deploy"] = getattr(function, "kind", "float")

    @dataclasses.dataclass(frozen=True, init=False)
    class FunctionTechnique(Technique):
        name: ClassVar[str] = path.partition(":")[2] or path
        traits: ClassVar[Traits] = Traits("own", kind, summary, searched=False)
        function: ClassVar[Callable[..., Any]]
        parameters: dict[str, Any]

        def __init__(self, **parameters: Any) -> None:
            object.__setattr__(self, "parameters", parameters)

        @property
        def size_depends_on(self) -> SizeBasis:
            return "training"  # nobody can say

        @classmethod
        def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
            """What of the parameters the function does not take: it has no bounds to ask."""
            signature = inspect.signature(function)
            try:
                signature.bind(None, None, **given)
            except TypeError as error:
                return [Problem(where, str(error), f"{function.__name__}{signature}")]
            return []

        def apply(self, twin: Twin, context: Context) -> Twin | Deployable:
            result = function(twin.copy(), context, **self.parameters)
            wanted = Twin if kind == "float" else Deployable
            if not isinstance(result, wanted):
                raise NetzipError(
                    f"{path} must return a {wanted.__name__}, returned {type(result).__name__}"
                )
            if isinstance(result, Twin):
                result = result.replace(chain=(*twin.chain, self.label()))
            return result

    FunctionTechnique.function = staticmethod(function)  # whose source decides the result
    return FunctionTechnique
