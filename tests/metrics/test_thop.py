"""thop agrees with the count off the graph, per convolution and linear layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from netzip_mlflow import models
from netzip_mlflow.deployable import export
from netzip_mlflow.metrics import operations
from netzip_mlflow.metrics.thop import count
from netzip_mlflow.twin import Twin

NETWORKS = [
    ("lenet5", (1, 32, 32)),
    ("resnet8", (3, 32, 32)),
    pytest.param("resnet20_cifar", (3, 32, 32), marks=pytest.mark.slow),
    pytest.param("resnet18", (3, 64, 64), marks=pytest.mark.slow),
]


def _network(name: str, shape: tuple[int, int, int]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.build(name, shape, {"num_classes": 10})


@pytest.mark.parametrize(("name", "shape"), NETWORKS)
def test_layers_agree_with_the_graph(name: str, shape: tuple[int, int, int]) -> None:
    network = _network(name, shape)
    graph = export(Twin.of(network, shape=shape)).model
    assert count(network, shape).layers == operations.totals(operations.layers(graph))["macs"]


@pytest.mark.parametrize(
    ("name", "shape"), [p.values if hasattr(p, "values") else p for p in NETWORKS]
)
def test_layers_agree_with_torchs_own_counter(name: str, shape: tuple[int, int, int]) -> None:
    network = _network(name, shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *shape))
    assert 2 * count(network, shape).layers == counter.get_total_flops()


def test_the_total_counts_more_than_layers() -> None:
    # MEASURING.md: ResNet-20 at 32: 40.55 M off the graph, 41.30 M by thop
    found = count(_network("resnet20_cifar", (3, 32, 32)), (3, 32, 32))
    assert found.layers / 1e6 == pytest.approx(40.55, abs=0.005)
    assert found.total / 1e6 == pytest.approx(41.30, abs=0.01)


def test_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3, groups=2),  # 6 outputs of 4x4, each of 1x3x3 products
        nn.ConvTranspose2d(6, 2, 2, stride=2),  # 4x4 inputs of 6 channels, each spread on 2x2x2
        nn.Flatten(),
        nn.Linear(128, 3),
    )
    expected = 6 * 16 * 9 + 16 * 6 * 2 * 4 + 128 * 3
    assert count(network, (2, 6, 6)).layers == expected


def test_counting_changes_nothing_and_repeats(twin: Twin) -> None:
    network = twin.network()
    before = twin.digest(), list(network.state_dict()), len(list(network.buffers()))
    hooks = [len(m._forward_hooks) for m in network.modules()]
    mode = [m.training for m in network.modules()]
    first, second = (count(network, twin.input.shape) for _ in range(2))
    assert first == second
    assert before == (twin.digest(), list(network.state_dict()), len(list(network.buffers())))
    assert hooks == [len(m._forward_hooks) for m in network.modules()]
    assert mode == [m.training for m in network.modules()]


def test_a_network_in_training_mode_counts_the_same(twin: Twin) -> None:
    network = twin.copy().network().train()
    assert count(network, twin.input.shape) == count(twin.network(), twin.input.shape)
    assert all(m.training for m in network.modules())
