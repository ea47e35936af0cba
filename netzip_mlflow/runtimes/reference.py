"""ONNX's reference evaluator: a file's own arithmetic, node by node, nothing folded or fused.

Slow, and its times tell nothing of a device: for a few samples, to see whether a faster runtime
answers what the file says. It has no operators beside ONNX's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, ValueInfoProto, checker, helper
from onnx.reference import ReferenceEvaluator

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.runtimes import layer_kinds
from netzip_mlflow.runtimes.signature import Declared, Signature, answers

if TYPE_CHECKING:
    from netzip_mlflow.runtimes.adapter import Adapter
    from netzip_mlflow.runtimes.protocol import Executed

__all__ = ["Reference", "ReferenceSession"]


class ReferenceSession:
    """A deployable in ONNX's reference evaluator; see `netzip_mlflow.runtimes.Session`."""

    def __init__(
        self, evaluator: ReferenceEvaluator, model: ModelProto, path: Path, adapter: Adapter | None
    ) -> None:
        stored = {tensor.name for tensor in model.graph.initializer}
        inputs = [_declared(each) for each in model.graph.input if each.name not in stored]
        outputs = [each.name for each in model.graph.output]
        self._evaluator = evaluator
        self._path = path
        self._signature = Signature.of(path, inputs, outputs, adapter)
        self.shape, self.outputs = self._signature.shape, self._signature.outputs

    def run(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        return self._signature.in_batches(x, self._answers)

    def bind(self, x: np.ndarray) -> Callable[[], None]:
        feed = self._signature.one_feed(x)
        self._answers(feed)

        def call() -> None:
            self._answers(feed)

        return call

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": "reference",
            "version": onnx.__version__,
            "providers": ["numpy"],
            "threads": 1,
        }

    def _answers(self, feed: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            with np.errstate(all="ignore"):  # infinities are answers too
                return answers([*self._evaluator.run(None, {self._signature.input: feed})])
        except Exception as error:  # a file may be anyone's, and the evaluator does not check
            raise NetzipError(f"{self._path}: the reference failed: {_one_line(error)}") from error


class Reference:
    """See `netzip_mlflow.runtimes.Runtime`."""

    about: ClassVar[str] = "ONNX's own evaluator, node by node: slow, only its answers are compared"
    timed: ClassVar[bool] = False

    def load(
        self,
        path: str | Path,
        *,
        threads: int = 1,  # noqa: ARG002 (numpy's are set by its environment)
        adapter: Adapter | None = None,
    ) -> ReferenceSession:
        """Open an ONNX file of standard operators."""
        model = _read(Path(path))
        try:
            evaluator = ReferenceEvaluator(model)
        except Exception as error:  # as when it runs
            what = f"the reference of onnx {onnx.__version__} cannot load it: {_one_line(error)}"
            raise InputError(what, source=str(path)) from error
        return ReferenceSession(evaluator, model, Path(path), adapter)

    def executed(self, path: str | Path) -> Executed:
        """The file's own graph, as it is written."""
        return layer_kinds.count(_read(Path(path)).graph)


def _read(path: Path) -> ModelProto:
    if not path.is_file():
        raise InputError("no such file", source=str(path))
    try:
        model = onnx.load(path)
        checker.check_model(model)
    except (DecodeError, OSError, ValueError, checker.ValidationError) as error:
        what = f"the reference of onnx {onnx.__version__} cannot load it: {_one_line(error)}"
        raise InputError(what, source=str(path)) from None
    return model


def _declared(info: ValueInfoProto) -> Declared:
    tensor = info.type.tensor_type
    sizes = tensor.shape.dim
    dims = tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)
    return Declared(info.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, dims)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
