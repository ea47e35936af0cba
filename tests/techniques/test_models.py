"""Every technique on networks of many kinds, with random weights: what it changes, stores and runs.

A case is a chain and a network; what must hold is asked of every case alike. To add a technique,
add its chain to `CHAINS`; to add a network, a line to `NETWORKS`.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from netzip_mlflow import techniques
from netzip_mlflow.deployable import Deployable, Exports
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics.graph import Graph
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.twin import Architecture, InputSpec, Twin

CLASSES = 10
Optimised = Callable[[onnx.ModelProto], list[str]]


@dataclass(frozen=True)
class Network:
    """A network to try: size of its images, and by chain its least disk ratio, where that differs.

    `refused`: chains that it cannot take, and a part of what they say; `only`: no other chains.
    """

    side: int = 32
    channels: int = 3
    fast: bool = False
    least: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()

    def takes(self, chain: str) -> bool:
        return chain not in self.refused and (not self.only or chain in self.only)


FOUR_BITS = {"int4": 7.0, "qat": 7.0}  # most of the file is weights of inner layers
NETWORKS = {
    "lenet5": Network(28, 1, fast=True),
    "resnet8": Network(fast=True),
    "resnet20_cifar": Network(least=FOUR_BITS),
    "resnet110_cifar": Network(
        only=("int8", "int4", "ternary", "channels", "low-rank"), least=FOUR_BITS
    ),
    "resnet18": Network(64, fast=True, least=FOUR_BITS),
    "vgg11_bn": Network(only=("int8",)),  # 129 million parameters
    "squeezenet1_1": Network(64, least=FOUR_BITS),
    "mobilenet_v2": Network(64),
    "mobilenet_v3_small": Network(64),
    "efficientnet_b0": Network(64),
    "shufflenet_v2_x0_5": Network(64),
    # 245,770 parameters: torchvision's names fix the sizes of its transformers, this one is small;
    # attention's projection of its input, a third of them, is no layer: only ptq's bits reach it
    "vit": Network(
        refused={"shared": "0 inner layers have spatial kernels"},
        least={"qat": 4.9, "binary": 6.8, "smallest": 1.4, "random": 1.4},
    ),
}


@dataclass(frozen=True)
class Chain:
    """A chain to try, and how many times smaller its file is at least."""

    steps: list[dict[str, dict[str, Any]]]
    least: float
    integer: bool = False


ONE = {"epochs": 1, "batch": 80}
CHAINS = {
    "int8": Chain([{"ptq": {}}], 3.7, integer=True),
    "int4": Chain([{"ptq": {"bits": 4}}], 5.5, integer=True),
    "ternary": Chain([{"ptq": {"bits": "ternary"}}], 10.0, integer=True),
    "qat": Chain([{"qat": {"bits": 4, **ONE}}, {"ptq": {}}], 5.5, integer=True),
    "binary": Chain([{"binarise": ONE}, {"ptq": {}}], 10.0, integer=True),
    "shared": Chain([{"share_kernels": ONE}, {"ptq": {}}], 3.7, integer=True),
    "half": Chain([{"half": {}}], 1.9),
    "dynamic": Chain([{"dynamic_int8": {}}], 3.0),
    "smallest": Chain([{"prune_l1": {"ratio": 0.5, "scope": "layer"}}], 1.7),
    "random": Chain([{"prune_random": {"ratio": 0.5}}], 1.7),
    "channels": Chain([{"prune_channels": {"ratio": 0.5}}], 1.1),
    "low-rank": Chain([{"factorise": {"ratio": 0.3}}], 1.1),
}
SLOW = {"ternary", "qat", "binary", "shared"}


def _cases(wanted: Callable[[Chain], bool] = lambda _: True) -> Iterator[Any]:
    for network, kind in NETWORKS.items():
        for name, chain in CHAINS.items():
            if wanted(chain) and kind.takes(name):
                slow = not kind.fast or name in SLOW
                yield pytest.param(network, name, marks=_marks(slow))


def _marks(slow: bool) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if slow else []


def _networks() -> Iterator[Any]:
    """Each network with all its chains, once per tier."""
    for network, kind in NETWORKS.items():
        chains = [name for name in CHAINS if kind.takes(name)]
        if kind.fast:
            yield pytest.param(network, [c for c in chains if c not in SLOW], marks=_marks(False))
            chains = [c for c in chains if c in SLOW]
        yield pytest.param(network, chains, marks=_marks(True))


every_case = pytest.mark.parametrize(("network", "chain"), list(_cases()))
every_integer_case = pytest.mark.parametrize(
    ("network", "chain"), list(_cases(lambda c: c.integer))
)
every_network = pytest.mark.parametrize(("network", "chains"), list(_networks()))
REFUSED = [
    pytest.param(network, chain, why, marks=_marks(not kind.fast))
    for network, kind in NETWORKS.items()
    for chain, why in kind.refused.items()
]

PLAIN = {"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
INTEGER = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"}

RELOAD = """
import sys
from pathlib import Path
import numpy as np, onnxruntime

folder = Path(sys.argv[1])
images = np.load(folder / "images.npy")
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
options.intra_op_num_threads = 1
found = {}
for file in sorted(folder.glob("*/model.onnx")):
    session = onnxruntime.InferenceSession(
        str(file), options, providers=["CPUExecutionProvider"]
    )
    (found[file.parent.name],) = session.run(None, {"images": images})
np.savez(folder / "scores.npz", **found)
"""


@dataclass(frozen=True)
class Bench:
    """A network with random weights, what techniques are given, and four images."""

    twin: Twin
    context: Context

    @property
    def images(self) -> np.ndarray:
        return next(self.context.task.split("validation").batches(4))[0]


@pytest.fixture(scope="module")
def bench() -> Callable[[str], Bench]:
    """`bench(network)`: a twin with random weights, and a context of random images."""
    exports = Exports(size=len(NETWORKS))
    known: dict[str, Bench] = {}

    def build(name: str) -> Bench:
        if name not in known:
            known[name] = _bench(name, exports)
        return known[name]

    return build


def _bench(name: str, exports: Exports) -> Bench:
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
    architecture = Architecture("name", name, task.arguments)
    if name == "vit":
        architecture = Architecture("factory", "tiny_networks:vision_transformer", task.arguments)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture.build(task.shape, task.outputs)
        _stir(model)
    spec = InputSpec(task.shape, (0.5,) * kind.channels, (0.25,) * kind.channels)
    twin = Twin(model.eval(), spec, task.outputs, architecture, task.facts)
    return Bench(twin, Context.of(task, twin, device="cpu", threads=1, exports=exports))


def _noise(draw: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of one brightness an image, so that random networks tell them apart."""
    brightest = draw.integers(8, 256, count).reshape(-1, *[1] * len(shape))
    return (draw.random((count, *shape)) * brightest).astype(np.uint8)


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


@dataclass(frozen=True)
class Made:
    """What a chain ships, and the float network before it was stored otherwise."""

    twin: Twin
    shipped: Deployable


@pytest.fixture(scope="module")
def made(bench: Callable[[str], Bench]) -> Callable[[str, str], Made]:
    """`made(network, chain)`: what the chain makes; `fp32` is the network as it stands."""
    known: dict[tuple[str, str], Made] = {}

    def make(network: str, chain: str) -> Made:
        if (network, chain) not in known:
            bed = bench(network)
            twin = bed.twin
            shipped: Deployable | None = None
            for technique in techniques.chain(CHAINS[chain].steps if chain in CHAINS else []):
                found = technique.apply(twin, bed.context)
                if isinstance(found, Twin):
                    twin = found
                else:
                    shipped = found
            known[network, chain] = Made(twin, shipped or deploy(twin, bed.context))
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


def _counted(twin: Twin) -> tuple[int, int]:
    """Parameters and operations, by torch's own counters."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin.model(torch.zeros(1, *twin.input.shape))
    return sum(p.numel() for p in twin.model.parameters()), counter.get_total_flops()


@every_integer_case
def test_what_is_executed(
    network: str, chain: str, made: Callable[[str, str], Made], optimised: Optimised
) -> None:
    kinds = Counter(optimised(made(network, chain).shipped.model))
    plain = Counter(optimised(made(network, "fp32").shipped.model))
    layers = sum(plain[kind] for kind in PLAIN)
    assert sum(kinds[kind] for kind in INTEGER) == layers
    assert not PLAIN & set(kinds)


@every_integer_case
def test_packed_and_unpacked_compute_the_same(
    network: str,
    chain: str,
    made: Callable[[str, str], Made],
    bench: Callable[[str], Bench],
) -> None:
    model = made(network, chain).shipped.model
    plain = _unpacked(model)
    assert not {"Split", "Mod"} & {n.op_type for n in plain.graph.node} - _kinds(made, network)
    images = bench(network).images
    scores = _run(model, images)
    assert np.isfinite(scores).all()
    if (network, chain) != ("shufflenet_v2_x0_5", "binary"):  # whose float twin answers all alike
        assert np.ptp(scores, axis=0).max() > 0, "random images are told apart"
    np.testing.assert_array_equal(scores, _run(plain, images))


def _kinds(made: Callable[[str, str], Made], network: str) -> set[str]:
    return {n.op_type for n in made(network, "fp32").shipped.model.graph.node}


@every_case
def test_the_disk_ratio(network: str, chain: str, made: Callable[[str, str], Made]) -> None:
    full, small = (made(network, c).shipped.model.ByteSize() for c in ("fp32", chain))
    assert full / small >= NETWORKS[network].least.get(chain, CHAINS[chain].least)


@every_case
def test_parameters_and_operations(
    network: str, chain: str, made: Callable[[str, str], Made], bench: Callable[[str], Bench]
) -> None:
    """Both fall where the structure changes, and stay where it does not."""
    before, after = _counted(bench(network).twin), _counted(made(network, chain).twin)
    if chain in ("channels", "low-rank"):
        assert after[0] < before[0]
        assert after[1] < before[1]
    else:
        assert after == before


@every_case
def test_the_twin_is_rebuilt(
    network: str, chain: str, made: Callable[[str, str], Made], tmp_path: Path
) -> None:
    twin = made(network, chain).twin
    twin.save(tmp_path)
    again = Twin.load(tmp_path, [twin.architecture.name])
    assert again.digest() == twin.digest()
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2, *twin.input.shape, generator=draw)
    with torch.no_grad():
        assert torch.equal(again.network()(images), twin.network()(images))


@every_network
def test_files_give_the_same_scores_in_a_fresh_process(
    network: str,
    chains: list[str],
    made: Callable[[str, str], Made],
    bench: Callable[[str], Bench],
    tmp_path: Path,
) -> None:
    """Files of float networks give torch's scores as well."""
    images = bench(network).images
    np.save(tmp_path / "images.npy", images)
    for chain in chains:
        made(network, chain).shipped.save(tmp_path / chain)
    subprocess.run([sys.executable, "-c", RELOAD, str(tmp_path)], check=True)
    scores = np.load(tmp_path / "scores.npz")
    assert sorted(scores) == sorted(chains)
    for chain in chains:
        found = made(network, chain)
        np.testing.assert_array_equal(scores[chain], _run(found.shipped.model, images))
        if len(found.twin.chain) == len(CHAINS[chain].steps):
            with torch.no_grad():
                wanted = found.twin.network()(torch.from_numpy(images)).numpy()
            np.testing.assert_allclose(scores[chain], wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("network", "chain", "why"), REFUSED)
def test_what_does_not_apply_says_why(
    network: str, chain: str, why: str, bench: Callable[[str], Bench]
) -> None:
    bed = bench(network)
    first = techniques.chain(CHAINS[chain].steps)[0]
    with pytest.raises(NetzipError, match=why):
        first.apply(bed.twin, bed.context)
