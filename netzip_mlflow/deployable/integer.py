"""A quantised graph with our own weights: other codes, other storage, small constants together.

ONNX Runtime's quantiser decides where activations are quantised and on what ranges. Here its
weights are replaced by codes in any form of `forms`, and scales and biases move into two rows of
float16 numbers, which the runtime casts and takes apart when it loads the file. Biases stay float:
the runtime (1.22 or later) quantises them to int32 with the scale that the product needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from netzip_mlflow.deployable.forms import FORMS, opset_of, store
from netzip_mlflow.errors import NetzipError

__all__ = ["LEAST_RUNTIME", "Row", "Weights", "with_weights"]

LEAST_RUNTIME = "1.22"  # the first ONNX Runtime that executes these graphs in int8
CEILING = 2.0**14  # where a row's largest number is put, well within float16


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


def with_weights(
    quantised: onnx.ModelProto, source: onnx.ModelProto, weights: Mapping[str, Weights]
) -> onnx.ModelProto:
    """`quantised` (QDQ form, by ONNX Runtime's quantiser, of `source`) with other weights.

    Args:
        source: the float graph, whose biases are taken.
        weights: by the name of the weight in `source`; `scale` already rounded by a `Row`.

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
    biases = _biases(model, source, weights, found)
    weights = _room_for_biases(model, weights, biases, found)
    for name in weights:  # the zero point stays: without it the runtime fuses neither Gemm nor Pad
        found[name].input[0], found[name].input[1] = f"{name}/codes", f"{name}/scale"
    storage = store({f"{name}/codes": (w.form, w.codes) for name, w in weights.items()})
    graph.initializer.extend(storage.initializers)
    _prepend(graph, storage.nodes)
    _write(graph, "scales", {f"{name}/scale": w.scale for name, w in weights.items()})
    _write(graph, "biases", {f"{name}/bias": bias for name, bias in biases.items()})
    _require_opset(model, opset_of([w.form for w in weights.values()]))
    return model


def _biases(
    model: onnx.ModelProto,
    source: onnx.ModelProto,
    weights: Mapping[str, Weights],
    found: Mapping[str, onnx.NodeProto],
) -> dict[str, np.ndarray]:
    """The float biases of the source by weight; the layers of `model` are set to read them."""
    values = {t.name: numpy_helper.to_array(t) for t in source.graph.initializer}
    readers = {n.input[1]: n for n in model.graph.node if n.op_type in _BIASED and n.input[2:]}
    biases = {}
    for node in source.graph.node:
        if node.op_type not in _BIASED or not node.input[2:] or node.input[1] not in weights:
            continue
        name, bias = node.input[1], values.get(node.input[2])
        reader = readers.get(found[name].output[0])
        if bias is not None and reader is not None:
            biases[name] = bias.ravel()
            reader.input[2] = f"{name}/bias"
    return biases


def _room_for_biases(
    model: onnx.ModelProto,
    weights: Mapping[str, Weights],
    biases: Mapping[str, np.ndarray],
    found: Mapping[str, onnx.NodeProto],
) -> dict[str, Weights]:
    """Wider scales where a channel's bias would not fit int32 as a multiple of its product's scale:
    channels whose weights are next to nothing, which lose nothing by it."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    readers = {n.input[1]: n for n in model.graph.node if n.op_type in _BIASED}
    result = dict(weights)
    for name, bias in biases.items():
        made = weights[name]
        source = makers.get(readers[found[name].output[0]].input[0])
        if source is None or source.op_type != "DequantizeLinear" or not FORMS[made.form].has_zero:
            continue
        least = np.abs(bias) / (float(values[source.input[1]]) * 2.0**30)
        if (made.scale >= least).all():
            continue
        scale = np.maximum(made.scale, least).astype(np.float32)
        codes = np.rint(made.codes * made.spread(made.scale / scale)).astype(np.int8)
        result[name] = Weights(made.form, codes, scale, made.axis)
    return result


_BIASED = {"Conv", "ConvTranspose", "Gemm"}


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
