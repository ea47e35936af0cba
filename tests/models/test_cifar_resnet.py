"""The CIFAR ResNets against He et al.'s depths and the given weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from netzip_mlflow.data import Split
from netzip_mlflow.models import build, load_weights
from netzip_mlflow.models.cifar_resnet import Block

needs_data = pytest.mark.skipif(
    "NETZIP_DATA" not in os.environ, reason="NETZIP_DATA names no folder of data"
)
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_depths_and_parameters_are_the_papers(depth: int, millions: float) -> None:
    model = build(f"resnet{depth}_cifar", (3, 32, 32), {"num_classes": 10})
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.03 if depth == 110 else 0.005)


def test_resnet20_has_the_given_networks_parameters_and_operations() -> None:
    model = build("resnet20_cifar", (3, 32, 32), {"num_classes": 10})
    assert sum(p.numel() for p in model.parameters()) == 269_722
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 2e6 == pytest.approx(40.55, abs=0.005)


def test_the_shortcut_is_option_a() -> None:
    block = Block(4, 8, 2)
    x = torch.arange(4 * 6 * 6, dtype=torch.float32).view(1, 4, 6, 6)
    out = block.shortcut(x)
    assert out.shape == (1, 8, 3, 3)
    assert not out[:, :2].any()
    assert not out[:, 6:].any()
    np.testing.assert_array_equal(out[:, 2:6], x[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert Block(8, 8, 1).shortcut(out) is out


def test_odd_sizes_and_other_channels_fit() -> None:
    model = build("resnet20_cifar", (1, 31, 29), {"num_classes": 5})
    assert model(torch.zeros(2, 1, 31, 29)).shape == (2, 5)


def _given() -> tuple[nn.Module, Split]:
    folder = Path(os.environ["NETZIP_DATA"])
    model = build("resnet20_cifar", (3, 32, 32), {"num_classes": 10})
    load_weights(model, folder / "resnet20_cifar10.safetensors")
    with np.load(folder / "cifar10.npz") as held:
        return model, Split("test", held["x_test"], held["y_test"])


def _hits(model: nn.Module, split: Split) -> np.ndarray:
    """Whether the right class is first, and whether it is among the first five, per image."""
    found = []
    with torch.no_grad():
        for x, y in split.batches(250):
            best = model((torch.from_numpy(x) - MEAN) / STD).topk(5).indices.numpy()
            found.append(best == y[:, None])
    hits = np.concatenate(found)
    return np.stack([hits[:, 0], hits.any(1)], axis=1)


@needs_data
def test_the_given_weights_recognise_the_first_images() -> None:
    model, split = _given()
    right = _hits(model, split.take(np.arange(500)))[:, 0].mean()
    # 88.32 % of all; one standard error over 500 images is 1.4 points
    assert 0.845 < right < 0.92


@needs_data
@pytest.mark.slow
def test_the_given_weights_give_the_given_figures() -> None:
    model, split = _given()
    hits = _hits(model, split)
    assert hits[:, 0].sum() == 8832
    assert hits[:2000, 0].sum() == 1775
    assert hits[2000:, 0].sum() == 7057
    assert hits[:, 1].mean() == pytest.approx(0.9966, abs=5e-5)
