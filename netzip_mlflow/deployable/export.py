"""From a twin to the FP32 ONNX graph that every deploy technique starts from."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netzip_mlflow import runtimes
from netzip_mlflow.deployable.compact import compact
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.signature import outputs_of

if TYPE_CHECKING:
    import onnx
    import torch

    from netzip_mlflow.twin import Twin

__all__ = ["INPUT", "Exported", "Exports", "export"]

INPUT = "images"
QUIET = ("torch.onnx", "torch.fx")
LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True, eq=False)
class Exported:
    """A compact FP32 graph.

    `deviation` is max |onnx - torch| over the outputs for three seeded random samples; `layers`
    names the layers in the graph's order as the network does: the compact graph has no names.
    """

    model: onnx.ModelProto
    deviation: float
    layers: tuple[str, ...]


def export(twin: Twin) -> Exported:
    """The twin as a compact FP32 graph.

    Input `images`: float32 (batch, *the twin's shape) in [0, 1]; outputs under the names of the
    twin's; the batch is dynamic; normalisation is inside; no external data.

    Raises:
        NetzipError: torch cannot export the network; the message carries its reason, and the layer
            and the line of code where torch knows them.
    """
    import torch

    network = twin.network().cpu()
    example = torch.rand(2, *twin.input.shape, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch")
    try:
        with _quiet(), torch.no_grad():
            answers = outputs_of(network(example), twin.outputs.names)
            twin.outputs.require(answers, 2, "the network")
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[*twin.outputs.names],
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        reason = _reason(error, network)
        raise NetzipError(f"torch cannot export the network to ONNX: {reason}") from error
    assert program is not None  # noqa: S101 (the dynamo exporter always returns its program)
    full = program.model_proto
    model = compact(full)
    if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise NetzipError(
            "torch cannot export the network to ONNX: it takes batches of one size only"
        )
    return Exported(model, _deviation(model, network), _layer_names(full, twin.model))


def _reason(error: BaseException, network: torch.nn.Module) -> str:
    """The first line of what torch failed at in the first place, with the layer and its code."""
    import torch

    while error.__cause__ is not None:  # the outer ones tell what to do about torch itself
        error = error.__cause__
    names = {id(module): name for name, module in network.named_modules()}
    layer = line = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        seen, node = frame.f_locals.get("self"), frame.f_locals.get("node")
        if id(seen) in names:
            layer = names[id(seen)]
            own = not type(seen).__module__.startswith("torch.")  # else its line says nothing
            line = f"{Path(frame.f_code.co_filename).name}, line {number}" if own else ""
        elif isinstance(node, torch.fx.Node):  # while it is translated to ONNX
            layer, _ = [("", ""), *node.meta.get("nn_module_stack", {}).values()][-1]
    # the network stands second in what is exported, behind its normalisation
    where = [f"layer {layer.removeprefix('1.')}"] if layer.startswith("1.") else []
    where += [line] if line else []
    first = str(error).strip().splitlines()[0].strip()
    return f"{first} ({', '.join(where)})" if where else first


class Exports:
    """A small memory of exported graphs, so that chains that share a twin export it once."""

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._known: OrderedDict[tuple[object, ...], Exported] = OrderedDict()

    def __call__(self, twin: Twin) -> Exported:
        """As `export`."""
        # two structures may carry the same weights, of a user's own module above all
        key = (twin.digest(), repr(twin.model), *(type(m) for m in twin.model.modules()))
        if key not in self._known:
            self._known[key] = export(twin)
        self._known.move_to_end(key)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return self._known[key]


def _layer_names(model: onnx.ModelProto, network: torch.nn.Module) -> tuple[str, ...]:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    turned: dict[tuple[object, ...], list[str]] | None = None  # a copy of all linear layers
    names = []
    for node in model.graph.node:
        if node.op_type not in LAYERS:
            continue
        name, weight = node.name, stored.get(node.input[1])
        if weight is not None and weight.name.endswith(".weight"):
            # the network stands second in the exported sequence, behind its normalisation
            name = weight.name.removeprefix("1.").removesuffix(".weight")
        elif weight is not None and node.op_type == "MatMul":
            turned = _turned(network) if turned is None else turned
            known = turned.get((*weight.dims, weight.raw_data))
            name = known.pop(0) if known else name
        names.append(name)
    return tuple(names)


def _turned(network: torch.nn.Module) -> dict[tuple[object, ...], list[str]]:
    """Names of linear layers by their weight's shape (inputs, outputs) and numbers.

    So a MatMul reads it, which is what a linear layer on tokens becomes, and no name is left of it.
    """
    import torch

    found: dict[tuple[object, ...], list[str]] = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear):
            weight = module.weight.detach().cpu().numpy().T
            found.setdefault((*weight.shape, weight.tobytes()), []).append(name)
    return found


def _deviation(model: onnx.ModelProto, network: object) -> float:
    import torch

    assert isinstance(network, torch.nn.Module)  # noqa: S101 (typing only)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    answers = runtimes.evaluator(model)({INPUT: images.numpy()})
    with torch.no_grad():
        pairs = zip(answers, outputs_of(network(images)), strict=True)
        return max(float((torch.from_numpy(one) - other).abs().max()) for one, other in pairs)


@contextlib.contextmanager
def _quiet():
    """The exporter prints progress and, where it fails, whole graphs; it warns about itself."""
    levels = {name: logging.getLogger(name).level for name in QUIET}
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
