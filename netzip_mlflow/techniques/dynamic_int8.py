"""Dynamic int8: weights stored in int8, activations quantised at every call."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.deployable import Deployable, compact
from netzip_mlflow.quantisation.quantiser_output import quiet_quantiser
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import parameter
from netzip_mlflow.techniques.protocol import Technique, Traits

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["DynamicInt8"]


@dataclass(frozen=True)
class DynamicInt8(Technique):
    """ONNX Runtime's dynamic quantisation. Small, and on convolutions always slower: an honest
    negative example (ranges are found anew at each call, and ConvInteger has no fast kernel)."""

    name: ClassVar[str] = "dynamic_int8"
    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="deploy",
        summary="int8 weights, activations quantised at every call (slow on convolutions)",
        searched=False,
    )
    per_channel: bool = parameter(
        True, "linear layers: one scale per output (convolutions have one per tensor)"
    )

    def apply(self, twin: Twin, context: Context) -> Deployable:
        """Quantise the exported twin; raises NetzipError when it cannot be exported."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        exported = context.exports(twin)
        with tempfile.TemporaryDirectory() as folder, quiet_quantiser():
            source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
            onnx.save(exported.model, source)
            quantize_dynamic(
                source, target, per_channel=self.per_channel, weight_type=QuantType.QUInt8
            )
            quantised = onnx.load(target)
        return Deployable.of(
            compact(quantised),
            twin,
            exported,
            task=context.task.name,
            label=self.label(),
        )
