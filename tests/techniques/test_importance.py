"""Which channels structured pruning takes for the least important: worked out by hand."""

from __future__ import annotations

import copy

import torch
from torch import nn

from netzip_mlflow.edits.channels import find_groups
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.importance import BATCH, importances
from netzip_mlflow.techniques.prune_channels import PruneChannels
from netzip_mlflow.twin import Twin


def removed(twin: Twin) -> dict[str, list[int]]:
    """Of the last edit's first step."""
    return dict(twin.edits[-1].data["steps"][0])


def test_the_channels_with_the_largest_l1_norm_stay(context: Context) -> None:
    """Worked out by hand: filter i has 27 weights of size[i]; all are read with the same weight."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    size = torch.tensor([0.5, -0.1, 0.4, 0.2, -0.6, 0.3])
    with torch.no_grad():
        net.get_parameter("0.weight").copy_(size.view(-1, 1, 1, 1).expand(6, 3, 3, 3))
        net.get_parameter("4.weight").fill_(0.25)
    before = net.get_parameter("0.bias").detach().clone()
    made = PruneChannels(0.5, round_to=1).apply(Twin.of(net, shape=(3, 8, 8)), context)
    stay = [0, 2, 4]
    assert removed(made) == {"0": [1, 3, 5]}
    assert torch.equal(made.model.get_parameter("0.weight")[:, 0, 0, 0], size[stay])
    assert torch.equal(made.model.get_parameter("0.bias"), before[stay])
    assert made.model.get_parameter("4.weight").shape == (4, 3)


def test_what_reads_a_channel_counts_as_what_makes_it(context: Context) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        net.get_parameter("0.weight").fill_(0.1)
        read = torch.tensor([0.3, 0.1, 0.2, 0.4]).repeat_interleave(4)  # four pixels a channel
        net.get_parameter("3.weight").copy_(read.expand(4, 16))
    made = PruneChannels(0.5, round_to=1).apply(Twin.of(net, shape=(3, 2, 2)), context)
    assert removed(made) == {"0": [1, 2]}
    left = made.model.get_parameter("3.weight")
    assert torch.equal(left, read[[0, 1, 2, 3, 12, 13, 14, 15]].expand(4, 8))


def test_taylor_sees_what_magnitude_does_not(twin: Twin, context: Context) -> None:
    """A channel of large weights that is always 0 behind its ReLU: its gradients are all 0."""
    dead = twin.copy()
    with torch.no_grad():
        dead.model.get_parameter("conv2.weight")[5] *= 10
        dead.model.get_parameter("bn2.weight")[5] = 0
        dead.model.get_parameter("bn2.bias")[5] = -1
    gone = {
        kind: removed(PruneChannels(0.1, importance=kind, round_to=1).apply(dead, context))
        for kind in ("taylor", "l1")
    }
    assert 5 in gone["taylor"]["conv2"]
    assert 5 not in gone["l1"]["conv2"]
    made = PruneChannels(0.1, importance="taylor", round_to=1, keep="conv1")
    lost = removed(made.apply(dead, context))["conv2"]
    assert len(lost) == 2


def test_taylor_is_the_change_of_the_loss(twin: Twin, context: Context) -> None:
    """Against a numerical derivative: all weights that read a channel scaled by 1 - h."""
    (group,) = (
        g for g in find_groups(twin.model, twin.input.shape, ()).groups if g.layer == "conv2"
    )
    (found,) = importances(twin, [group], "taylor", context)
    network = copy.deepcopy(twin.network()).double()
    weight = network.get_submodule("1.linear").get_parameter("weight")
    batches = [
        (torch.from_numpy(x).double(), torch.from_numpy(y))
        for x, y in context.calibration.batches(BATCH)
    ]
    h, total = 1e-4, torch.zeros(group.units, dtype=torch.float64)
    with torch.no_grad():
        for unit in range(group.units):
            kept = weight[:, unit].clone()
            for images, labels in batches:
                weight[:, unit] = kept * (1 - h)
                lower = context.task.loss((network(images),), labels, 0.0)
                weight[:, unit] = kept * (1 + h)
                upper = context.task.loss((network(images),), labels, 0.0)
                total[unit] += ((upper - lower) / (2 * h)) ** 2 * len(labels)
            weight[:, unit] = kept
    wanted = total / sum(len(labels) for _, labels in batches)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-9)
