"""The layers of an exported network that hold a weight, and what quantisation makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netzip_mlflow import runtimes
from netzip_mlflow.deployable import INPUT
from netzip_mlflow.deployable.integer import Row, Weights
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.quantisation import rounding

if TYPE_CHECKING:
    import onnx

    from netzip_mlflow.deployable import Exported
    from netzip_mlflow.twin import Twin

__all__ = [
    "Layer",
    "find",
    "require_zeros",
    "weights",
    "with_corrected_biases",
    "with_rounded",
]

KINDS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
BATCH = 16


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes that a float technique has left for a layer, as rows (channels, n)."""

    form: str
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight: its rows (channels, n), and how it lies in the graph (`axis`: channels)."""

    name: str
    rows: np.ndarray
    shape: tuple[int, ...]
    axis: int
    grid: Codes | None = None

    def laid(self, rows: np.ndarray) -> np.ndarray:
        """Rows as the graph holds them."""
        moved = (self.shape[self.axis], *np.delete(self.shape, self.axis))
        return np.moveaxis(rows.reshape(moved), 0, self.axis)

    def rounded(self, form: str) -> np.ndarray:
        """The weight as the graph holds it, rounded to a form."""
        scale = rounding.fit(self.rows, form)
        return self.laid(rounding.codes(self.rows, scale, form) * scale[:, None])


def find(source: Exported, twin: Twin) -> dict[str, Layer]:
    """The layers of an exported twin in order, by the weight's name in the graph.

    Raises:
        NetzipError: the twin has a grid for a layer that the graph does not show.
    """
    from onnx import numpy_helper

    constants = {t.name: t for t in source.model.graph.initializer}
    nodes = [n for n in source.model.graph.node if n.op_type in KINDS]
    found: dict[str, Layer] = {}
    placed = set()
    for node, name in zip(nodes, source.layers, strict=True):
        weight = node.input[1]
        if weight in found:  # two layers of equal weights share them in the graph
            placed.add(name)
        if weight not in constants or weight in found:
            continue
        values = numpy_helper.to_array(constants[weight])
        axis = _channel_axis(node, values.ndim)
        rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64)
        grid = None
        if name in twin.grids:
            placed.add(name)
            grid = _on_grid(twin, name, rows)
        found[weight] = Layer(name, rows, values.shape, axis, grid)
    lost = sorted(twin.grids.keys() - placed)
    if lost:
        raise NetzipError(
            f"ptq: layer {lost[0]} lies on a grid, and the exported graph has no such layer"
        )
    return found


def _channel_axis(node: onnx.NodeProto, ndim: int) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return 1 if node.op_type == "ConvTranspose" else ndim - 1


def _on_grid(twin: Twin, name: str, rows: np.ndarray) -> Codes:
    """The grid's codes, turned where a folded normalisation has turned a channel's sign."""
    grid = twin.grids[name]
    weight = twin.model.get_parameter(f"{name}.weight")
    codes = grid.codes(weight).cpu().numpy().reshape(len(rows), -1)
    turned = (codes * rows).sum(axis=1) < 0
    return Codes(grid.form, np.where(turned[:, None], -codes, codes))


def require_zeros(
    found: Mapping[str, Layer], plan: Mapping[str, str], twin: Twin, where: str
) -> None:
    """Whether pruned layers can stay so in the forms of a plan; `where`: what gave the forms.

    Raises:
        NetzipError: a pruned layer's form has no zero.
    """
    for weight, layer in found.items():
        mask = twin.masks.get(f"{layer.name}.weight")
        if mask is not None and not bool(mask.all()):
            rounding.require_zero(layer.name, plan[weight], where)


def weights(
    found: Mapping[str, Layer], plan: Mapping[str, str], *, reduced: bool
) -> dict[str, Weights]:
    """Codes and scales of every layer in the form that the plan gives it."""
    fitted = {}
    for name, layer in found.items():
        if layer.grid is None:
            fitted[name] = rounding.fit(layer.rows, plan[name], reduced=reduced)
        else:
            codes = layer.grid.rows.astype(np.float64)
            power = np.square(codes).sum(axis=1)
            scale = (codes * layer.rows).sum(axis=1) / np.where(power > 0, power, 1)
            # a normalisation of zero silences a channel: its codes then stand for next to nothing
            fitted[name] = np.where(power > 0, np.maximum(scale, 0), scale.max() or 1.0)
    least = 2.0**-24 * max(float(s.max()) for s in fitted.values())
    row = Row(max(float(s.max()) for s in fitted.values()))
    made = {}
    for name, layer in found.items():
        scale = row.rounded(np.maximum(fitted[name], least))
        high = rounding.REDUCED if reduced and plan[name] == "int8" else None
        codes = (
            rounding.codes(layer.rows, scale, plan[name], high)
            if layer.grid is None
            else layer.grid.rows
        )
        made[name] = Weights(plan[name], layer.laid(codes), scale, layer.axis)
    return made


def with_rounded(
    model: onnx.ModelProto, found: Mapping[str, Layer], made: Mapping[str, Weights]
) -> onnx.ModelProto:
    """The float graph with the numbers that the codes stand for."""
    values = {name: made[name].codes * made[name].spread(made[name].scale) for name in found}
    return _with(model, values)


def with_corrected_biases(
    model: onnx.ModelProto,
    source: onnx.ModelProto,
    found: Mapping[str, Layer],
    images: np.ndarray,
) -> onnx.ModelProto:
    """`model` (`source` with other weights) with biases that make up for the mean error.

    The error of a channel's mean output is the error of its weights times the mean input; what
    padding takes from the borders is left out. Source: Nagel et al., Data-free quantization
    (arXiv 1906.04721), section 4.2, with means from data.
    """
    from onnx import ModelProto, numpy_helper

    corrected = ModelProto()
    corrected.CopyFrom(model)
    before = _constants(source)
    after = _constants(model)
    nodes = [n for n in corrected.graph.node if _is_corrected(n, found, before)]
    means = _mean_inputs(source, [n.input[0] for n in nodes], images)
    for position, node in enumerate(nodes):
        weight = node.input[1]
        error = np.moveaxis(before[weight] - after[weight], found[weight].axis, 0)
        per_input = error.reshape(*error.shape[:2], -1).sum(axis=2)
        mean = means[node.input[0]].reshape(-1, per_input.shape[1])  # (groups, inputs of a group)
        inputs = np.repeat(mean, len(per_input) // len(mean), axis=0)
        bias = before[node.input[2]] if any(node.input[2:]) else 0.0
        values = bias + (per_input * inputs).sum(axis=1)
        name = f"{weight}/corrected{position}"  # layers may share a weight, a bias or both
        node.input[:] = [*node.input[:2], name]
        tensor = numpy_helper.from_array(values.astype(np.float32), name)
        corrected.graph.initializer.append(tensor)
    used = {name for node in corrected.graph.node for name in node.input}
    kept = [tensor for tensor in corrected.graph.initializer if tensor.name in used]
    del corrected.graph.initializer[:]
    corrected.graph.initializer.extend(kept)
    return corrected


def _is_corrected(
    node: onnx.NodeProto, found: Mapping[str, Layer], constants: Mapping[str, np.ndarray]
) -> bool:
    """Whether the node is a layer whose bias is stored or absent."""
    layer = node.op_type in ("Conv", "Gemm") and node.input[1] in found
    return layer and all(name in constants for name in node.input[2:] if name)


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def _mean_inputs(
    model: onnx.ModelProto, names: list[str], images: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean over samples and positions of tensors (n, channels, ...), per channel."""
    wanted = [name for name in dict.fromkeys(names) if name != INPUT]
    run = _shown(model, wanted)
    sums: dict[str, np.ndarray] = {}
    for start in range(0, len(images), BATCH):  # all activations of a batch are held at once
        batch = images[start : start + BATCH]
        for name, value in (run(batch) | {INPUT: batch}).items():
            means = value.mean(axis=tuple(range(2, value.ndim)), dtype=np.float64)
            total = means.sum(axis=0)
            sums[name] = sums.get(name, 0) + total
    return {name: total / len(images) for name, total in sums.items()}


def _shown(
    model: onnx.ModelProto, names: list[str]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from images to tensors inside the graph."""
    from onnx import ModelProto, helper

    if not names:  # the runtime wants at least one output
        return lambda _: {}
    shown = ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    run = runtimes.evaluator(shown)
    return lambda images: dict(zip(names, run({INPUT: images}), strict=True))


def _with(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    from onnx import ModelProto, numpy_helper

    changed = ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in values:
            array = values[tensor.name].astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return changed
