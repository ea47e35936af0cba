"""Every technique on networks of many kinds, with random weights: what is executed, what is stored.

A case is a technique and a network; what must hold of a file is asked of every case alike. To add a
technique, add its chains to `CHAINS`; to add a network, a line to `NETWORKS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from netzip_mlflow import models, techniques
from netzip_mlflow.deployable import Deployable, Exports, deploy
from netzip_mlflow.metrics.graph import Graph
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.twin import InputSpec, Twin

CLASSES = 10
Optimised = Callable[[onnx.ModelProto], list[str]]


@dataclass(frozen=True)
class Network:
    """A network to try: size of its images, and what is known to fall short with it, and why."""

    side: int = 32
    channels: int = 3
    fast: bool = False
    least_8: float = 3.7
    least_4: float = 5.5


NETWORKS = {
    "lenet5": Network(28, 1, fast=True),
    "resnet8": Network(fast=True),
    "resnet20_cifar": Network(least_4=7.0),
    "resnet110_cifar": Network(least_4=7.0),
    "resnet18": Network(64, fast=True, least_4=7.0),
    "vgg11_bn": Network(least_4=7.0),
    "squeezenet1_1": Network(64, least_4=7.0),
    "mobilenet_v2": Network(64),
    "mobilenet_v3_small": Network(64),
    "efficientnet_b0": Network(64),
    "shufflenet_v2_x0_5": Network(64),
    # 245,770 parameters: torchvision's names fix the sizes of its transformers, this one is small
    "vit": Network(least_8=3.5),
}
CHAINS: dict[str, list[dict[str, dict[str, Any]]]] = {
    "int8": [{"ptq": {}}],
    "int4": [{"ptq": {"bits": 4}}],
    "ternary": [{"ptq": {"bits": "ternary"}}],
}
CASES = [
    pytest.param(network, chain, marks=() if kind.fast and chain != "ternary" else pytest.mark.slow)
    for network, kind in NETWORKS.items()
    for chain in CHAINS
]
every_case = pytest.mark.parametrize(("network", "chain"), CASES)

PLAIN = {"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
INTEGER = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"}


@pytest.fixture(scope="module")
def bench() -> Callable[[str], tuple[Twin, Context]]:
    """`bench(network)`: a twin with random weights, and a context of random images."""
    exports = Exports(size=len(NETWORKS))
    known: dict[str, tuple[Twin, Context]] = {}

    def build(name: str) -> tuple[Twin, Context]:
        if name not in known:
            known[name] = _bench(name, exports)
        return known[name]

    return build


def _bench(name: str, exports: Exports) -> tuple[Twin, Context]:
    kind = NETWORKS[name]
    draw = np.random.default_rng(0)
    shape = (kind.side, kind.side) + ((3,) if kind.channels == 3 else ())
    task = Classification.of(
        {
            "x_train": _noise(draw, 80, shape),
            "y_train": np.arange(80) % CLASSES,
            "x_test": _noise(draw, 20, shape),
            "y_test": np.arange(20) % CLASSES,
        },
        calibration=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _built(name, kind)
        _stir(model)
    spec = InputSpec(task.shape, (0.5,) * kind.channels, (0.25,) * kind.channels)
    twin = Twin(model.eval(), spec, task.classes)
    return twin, Context.of(task, twin, device="cpu", threads=1, exports=exports)


def _noise(draw: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of one brightness an image, so that random networks tell them apart."""
    brightest = draw.integers(8, 256, count).reshape(-1, *[1] * len(shape))
    return (draw.random((count, *shape)) * brightest).astype(np.uint8)


def _built(name: str, kind: Network) -> torch.nn.Module:
    if name == "vit":
        from torchvision.models import VisionTransformer

        return VisionTransformer(
            image_size=kind.side,
            patch_size=8,
            num_layers=3,
            num_heads=4,
            hidden_dim=96,
            mlp_dim=192,
            num_classes=CLASSES,
        )
    size = (kind.side, kind.side)
    return models.build(name, classes=CLASSES, channels=kind.channels, size=size)


def _stir(model: torch.nn.Module) -> None:
    """Biases and normalisations as training leaves them, not at 0 and 1."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.bias, 0.0, 0.1)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.1)
        elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module.bias is not None:
            torch.nn.init.normal_(module.bias, 0.0, 0.02)
            if not module.weight.any():  # a transformer's head
                torch.nn.init.normal_(module.weight, 0.0, 0.1)


@pytest.fixture(scope="module")
def made(bench: Callable[[str], tuple[Twin, Context]]) -> Callable[[str, str], Deployable]:
    """`made(network, chain)`: what the chain ships; `fp32` is the network as it stands."""
    known: dict[tuple[str, str], Deployable] = {}

    def make(network: str, chain: str) -> Deployable:
        if (network, chain) not in known:
            twin, context = bench(network)
            found: Twin | Deployable = twin
            for technique in techniques.chain(CHAINS.get(chain, [])):
                assert isinstance(found, Twin)
                found = technique.apply(found, context)
            known[network, chain] = deploy(found, context) if isinstance(found, Twin) else found
        return known[network, chain]

    return make


def _unpacked(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with every unpacked number stored plainly under its name."""
    graph = Graph(model)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    constant = [n for n in graph.nodes if all(graph.is_constant(o) for o in n.output)]
    gone = {o for n in constant if n.op_type != "DequantizeLinear" for o in n.output}
    rest = [n for n in plain.graph.node if not gone & set(n.output)]
    used = {i for n in rest for i in n.input}
    plain.graph.initializer.extend(
        onnx.numpy_helper.from_array(graph.value(name), name) for name in sorted(gone & used)
    )
    del plain.graph.node[:]
    plain.graph.node.extend(rest)
    return plain


def _run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": images})[0]


@every_case
def test_what_is_executed(
    network: str, chain: str, made: Callable[[str, str], Deployable], optimised: Optimised
) -> None:
    kinds = Counter(optimised(made(network, chain).model))
    plain = Counter(optimised(made(network, "fp32").model))
    layers = sum(plain[kind] for kind in PLAIN)
    assert sum(kinds[kind] for kind in INTEGER) == layers
    assert not PLAIN & set(kinds)


@every_case
def test_packed_and_unpacked_compute_the_same(
    network: str,
    chain: str,
    made: Callable[[str, str], Deployable],
    bench: Callable[[str], tuple[Twin, Context]],
) -> None:
    model = made(network, chain).model
    plain = _unpacked(model)
    assert not {"Split", "Mod"} & {n.op_type for n in plain.graph.node} - _kinds(made, network)
    images, _ = next(bench(network)[1].task.split("validation").batches(4))
    scores = _run(model, images)
    assert np.isfinite(scores).all()
    assert np.ptp(scores, axis=0).max() > 0, "random images are told apart"
    np.testing.assert_array_equal(scores, _run(plain, images))


def _kinds(made: Callable[[str, str], Deployable], network: str) -> set[str]:
    return {n.op_type for n in made(network, "fp32").model.graph.node}


@every_case
def test_the_disk_ratio(network: str, chain: str, made: Callable[[str, str], Deployable]) -> None:
    full, small = (made(network, c).model.ByteSize() for c in ("fp32", chain))
    kind = NETWORKS[network]
    least = {"int8": kind.least_8, "int4": kind.least_4, "ternary": 10.0}[chain]
    assert full / small >= least
