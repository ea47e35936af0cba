"""Half precision: weights and arithmetic in float16, input and output kept in float32."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.deployable import Deployable, compact
from netzip_mlflow.techniques import Context, Traits

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["Half"]


@dataclass(frozen=True)
class Half:
    """fp16 by ONNX Runtime's converter. Half the size; a CPU without fp16 kernels inserts casts and
    computes in float32, so its speed shows only where the hardware has them."""

    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="deploy",
        summary="float16 weights and arithmetic",
    )

    def label(self) -> str:
        return "half(fp16)"

    def apply(self, twin: Twin, context: Context) -> Deployable:
        """Convert the exported twin; raises NetzipError when it cannot be exported."""
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        source = context.exports(twin)
        copied = onnx.ModelProto()
        copied.CopyFrom(source.model)  # the converter works in place
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # it warns of each weight below 1e-7, which becomes 1e-7
            halved = convert_float_to_float16(copied, keep_io_types=True)
        return Deployable.of(
            compact(halved),
            twin,
            source,
            task=context.task.name,
            label=self.label(),
        )
