"""ResNet-8 against the counts that MLPerf Tiny publishes."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from netzip_mlflow.models import build


def test_parameters_and_operations_are_those_of_mlperf_tiny() -> None:
    model = build("resnet8", (3, 32, 32), {"num_classes": 10})
    # Keras counts the BatchNorm statistics as parameters
    assert sum(t.numel() for t in model.state_dict().values() if t.dim()) == 78_666
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() == 2 * 12_501_632


def test_half_the_width_has_a_quarter_of_the_operations_inside() -> None:
    counts = []
    for width in (16, 8):
        model = build("resnet8", (3, 32, 32), {"num_classes": 10, "width": width})
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, 32, 32))
        edges = 2 * (27 * width * 32 * 32 + 4 * width * 10)  # first and last layer: linear in width
        counts.append(counter.get_total_flops() - edges)
    assert counts[0] == 4 * counts[1]


def test_other_channels_classes_and_sizes_fit() -> None:
    model = build("resnet8", (1, 30, 17), {"num_classes": 43})
    assert model(torch.zeros(3, 1, 30, 17)).shape == (3, 43)


def test_the_scores_depend_on_every_parameter() -> None:
    model = build("resnet8", (3, 32, 32), {"num_classes": 10})
    model.train()(torch.rand(4, 3, 32, 32)).logsumexp(1).sum().backward()
    # a bias before BatchNorm in training mode has no effect, by construction
    unused = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []
