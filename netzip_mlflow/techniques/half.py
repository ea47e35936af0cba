"""Half precision: float16 weights and arithmetic, or bfloat16 weights and float32 arithmetic."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.deployable import Deployable, compact, pack_zeros
from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.parameters import parameter
from netzip_mlflow.techniques.protocol import Technique, Traits

if TYPE_CHECKING:
    import onnx

    from netzip_mlflow.twin import Twin

__all__ = ["Half"]

LEAST = 17  # numbers; the node that widens an initialiser takes about 32 bytes of the file


@dataclass(frozen=True)
class Half(Technique):
    """Half the size. Input and output stay float32.

    `fp16` is ONNX Runtime's converter: a CPU without fp16 kernels inserts casts and computes in
    float32, so its speed shows only where the hardware has them. `bf16` is a form of storage:
    ONNX Runtime 1.32 has no bfloat16 kernel on CPUs for Conv, Gemm, MatMul or Relu (a session says
    NOT_IMPLEMENTED), so each weight is stored rounded to bfloat16 and widened by a Cast, which the
    runtime folds when it loads the file. It computes in float32, and counts as 32 bits.
    """

    name: ClassVar[str] = "half"
    traits: ClassVar[Traits] = Traits(
        family="quantisation",
        kind="deploy",
        summary="weights in two bytes: float16, computed so, or bfloat16, computed in float32",
        makes_zeros=False,  # what is too small for fp16 becomes 1e-7
    )
    dtype: str = parameter(
        "fp16", "fp16: range 6e-8 to 65504; bf16: float32's range", choices=("fp16", "bf16")
    )

    def label(self) -> str:
        return f"half({self.dtype})"

    def apply(self, twin: Twin, context: Context) -> Deployable:
        """Convert the exported twin; raises NetzipError when it cannot be exported."""
        source = context.exports(twin)
        convert = _fp16 if self.dtype == "fp16" else _bf16
        model = compact(convert(source.model))
        return Deployable.of(
            pack_zeros(model) if twin.masks else model,
            twin,
            source,
            task=context.task.name,
            label=self.label(),
        )


def _fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(model)  # the converter works in place
    kept = _transposes_before_products(copied.graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of each weight below 1e-7, which becomes 1e-7
        return convert_float_to_float16(copied, keep_io_types=True, node_block_list=kept)


def _transposes_before_products(graph: onnx.GraphProto) -> list[str]:
    """Names (given here) of the nodes that have to stay in float32.

    On a CPU without fp16 kernels ONNX Runtime widens what a MatMul reads; its fusion then swaps
    Transpose and Cast, and its layout pass ends the process at the node that this leaves
    (microsoft/onnxruntime#28392, seen with 1.32 on x86).
    """
    read = {name for node in graph.node if node.op_type == "MatMul" for name in node.input}
    found = [n for n in graph.node if n.op_type == "Transpose" and n.output[0] in read]
    for number, node in enumerate(found):
        node.name = f"transpose{number}"
    return [node.name for node in found]


def _bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Float32 initialisers rounded to nearest, ties to even; small ones would gain nothing."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    widened = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < LEAST:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(bfloat16), f"{name}.bf16"))
        widened.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*widened, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return made
