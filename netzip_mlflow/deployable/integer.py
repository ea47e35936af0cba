"""A quantised graph with our own weights: other codes, other storage, small constants together.

ONNX Runtime's quantiser decides where activations are quantised and on what ranges. Here its
weights are replaced by codes in any form of `forms`, and scales and biases move into two rows of
float16 numbers, which the runtime casts and takes apart when it loads the file. Biases stay float:
the runtime quantises them to int32 with the scale that the product needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from netzip_mlflow.deployable.encodings import FORMS, opset_of, store
from netzip_mlflow.errors import NetzipError

__all__ = ["Row", "Weights", "least_runtime", "with_weights"]

CEILING = 2.0**14  # where a row's largest number is put, well within float16
BIASED = {"Conv", "ConvTranspose", "Gemm"}


@dataclass(frozen=True, eq=False)
class Weights:
    """A layer's weights as they ship: codes of the weight's shape, float32 scale per channel.

    `axis` is where the codes have their channels.
    """

    form: str
    codes: np.ndarray
    scale: np.ndarray
    axis: int = 0

    def spread(self, per_channel: np.ndarray) -> np.ndarray:
        """Numbers per channel in a shape that multiplies the codes."""
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return per_channel.reshape(shape)


class Row:
    """Numbers kept in float16 with one power of two for all, so that small ones lose nothing."""

    def __init__(self, largest: float) -> None:
        self._factor = 2.0 ** np.floor(np.log2(CEILING / largest)) if largest > 0 else 1.0

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """The float32 numbers that come back out of the row."""
        return self._stored(values).astype(np.float32) / np.float32(self._factor)

    def _stored(self, values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float64) * self._factor).astype(np.float16)

    def write(self, graph: onnx.GraphProto, name: str, parts: Mapping[str, np.ndarray]) -> None:
        """Add the row, and nodes that hand it out in parts (name -> values, one axis)."""
        whole = np.concatenate([self._stored(v) for v in parts.values()])
        constants = {
            name: whole,
            f"{name}/factor": np.array(self._factor, np.float32),
            f"{name}/sizes": np.array([len(v) for v in parts.values()]),
        }
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
        nodes = [
            helper.make_node("Cast", [name], [f"{name}/wide"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Div", [f"{name}/wide", f"{name}/factor"], [f"{name}/all"]),
            helper.make_node("Split", [f"{name}/all", f"{name}/sizes"], list(parts), axis=0),
        ]
        _prepend(graph, nodes)


def least_runtime(forms: Iterable[str]) -> str:
    """The first ONNX Runtime that executes these forms in int8 (seen, from 1.17 to 1.32).

    Up to 1.20 float biases keep every layer in float; up to 1.22 files with int4 do not load.
    """
    return "1.23" if "int4" in forms else "1.21"


def with_weights(quantised: onnx.ModelProto, weights: Mapping[str, Weights]) -> onnx.ModelProto:
    """`quantised` (QDQ form with float biases, by ONNX Runtime's quantiser) with other weights.

    Args:
        weights: by the name of the weight before it was quantised; `scale` already rounded by a
            `Row`.

    Raises:
        NetzipError: a weight that the quantiser left in float.
    """
    model = onnx.ModelProto()
    model.CopyFrom(quantised)
    graph = model.graph
    found = {
        node.input[0].removesuffix("_quantized"): node
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0].endswith("_quantized")
    }
    missing = [name for name, made in weights.items() if name not in found and made.form != "int8"]
    if missing:
        raise NetzipError(f"the quantiser left the weight {missing[0]} in float")
    weights = {name: made for name, made in weights.items() if name in found}
    biased = [node for node in graph.node if node.op_type in BIASED]
    readers = {n: [b for b in biased if b.input[1] == found[n].output[0]] for n in weights}
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    weights = {
        name: _with_room_for_biases(graph, made, readers[name], constants)
        for name, made in weights.items()
    }
    biases = _biases(readers, constants)
    for name in weights:  # the zero point stays: without it the runtime fuses neither Gemm nor Pad
        found[name].input[0], found[name].input[1] = f"{name}/codes", f"{name}/scale"
    storage = store({f"{name}/codes": (w.form, w.codes) for name, w in weights.items()})
    graph.initializer.extend(storage.initializers)
    _prepend(graph, storage.nodes)
    _write(graph, "scales", {f"{name}/scale": w.scale for name, w in weights.items()})
    _write(graph, "biases", biases)
    _require_opset(model, opset_of([w.form for w in weights.values()]))
    return model


def _biases(
    readers: Mapping[str, Sequence[onnx.NodeProto]], constants: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The biases of the layers, which are set to read them from a row: one for each layer, for
    layers that share a weight too."""
    biases = {}
    for name, nodes in readers.items():
        for position, node in enumerate(n for n in nodes if _has_bias(n, constants)):
            part = f"{name}/bias{position}"
            biases[part] = constants[node.input[2]].ravel()
            node.input[2] = part
    return biases


def _has_bias(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> bool:
    bias = constants.get(node.input[2]) if len(node.input) > 2 else None
    return bias is not None and bias.dtype == np.float32


def _with_room_for_biases(
    graph: onnx.GraphProto,
    made: Weights,
    readers: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
) -> Weights:
    """Wider scales where a channel's bias would not fit int32 as a multiple of its product's scale:
    channels whose weights are next to nothing beside it, which lose nothing by it."""
    makers = {output: node for node in graph.node for output in node.output}
    least = np.zeros(len(made.scale))
    for node in readers:
        source = makers.get(node.input[0])
        if source is None or source.op_type != "DequantizeLinear" or not _has_bias(node, constants):
            continue
        bias = np.abs(constants[node.input[2]].astype(np.float64)).ravel()
        bias = bias.reshape(-1, len(least)).max(axis=0)  # groups of a ConvTranspose share scales
        least = np.maximum(least, bias / (float(constants[source.input[1]]) * 2.0**30))
    if (made.scale >= least).all():
        return made
    scale = np.maximum(made.scale, least).astype(np.float32)
    kind = FORMS[made.form]
    if made.form == "kernels":  # any other code would be none of the book's
        return Weights(made.form, made.codes, scale, made.axis)
    exact = made.codes * made.spread(made.scale / scale)
    codes = np.rint((exact + kind.high) / kind.step) * kind.step - kind.high
    return Weights(made.form, codes.astype(np.int8), scale, made.axis)


def _write(graph: onnx.GraphProto, name: str, parts: Mapping[str, np.ndarray]) -> None:
    if parts:
        row = Row(max(float(np.abs(v).max()) for v in parts.values()))
        row.write(graph, name, parts)


def _prepend(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])


def _require_opset(model: onnx.ModelProto, least: int) -> None:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, least)
    least_ir = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = max(model.ir_version, least_ir)
