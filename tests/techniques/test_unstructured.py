"""Unstructured pruning: exact counts, masks, repetition. Both prunings share this code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netzip_mlflow import models, training
from netzip_mlflow.deployable import Deployable
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics import operations, size
from netzip_mlflow.recipe import TrainSpec
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.techniques.prune_random import PruneRandom
from netzip_mlflow.techniques.unstructured import prunable
from netzip_mlflow.twin import Twin

LAYERS = ("conv1.weight", "conv2.weight", "linear.weight")
both = pytest.mark.parametrize("technique", [PruneL1, PruneRandom])


def weights(twin: Twin) -> np.ndarray:
    """All weights that can be pruned, in one row."""
    state = twin.model.state_dict()
    return np.concatenate([state[name].numpy().ravel() for name in LAYERS])


def masks(twin: Twin) -> np.ndarray:
    """Their masks in the same order."""
    return np.concatenate([twin.masks[name].numpy().ravel() for name in LAYERS])


@both
@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.5, 0.95])
def test_exactly_the_share_becomes_zero(
    technique: type, ratio: float, twin: Twin, context: Context
) -> None:
    before = weights(twin)
    assert before.all(), "no zeros to begin with"
    made = technique(ratio).apply(twin, context)
    after = weights(made)
    assert (after == 0).sum() == round(ratio * before.size)
    np.testing.assert_array_equal(masks(made), after != 0)
    np.testing.assert_array_equal(after[after != 0], before[after != 0])
    assert {m.dtype for m in made.masks.values()} == {torch.bool}


@both
def test_the_rest_of_the_network_stays(technique: type, twin: Twin, context: Context) -> None:
    made = technique(0.5).apply(twin, context).model.state_dict()
    for name, tensor in twin.model.state_dict().items():
        assert name in LAYERS or torch.equal(made[name], tensor)
    assert made.keys() == twin.model.state_dict().keys(), "no trace of the pruning is left"


@both
def test_ratio_zero_changes_nothing(technique: type, twin: Twin, context: Context) -> None:
    made = technique(0.0).apply(twin, context)
    assert made.masks == {}
    np.testing.assert_array_equal(weights(made), weights(twin))


@both
@pytest.mark.parametrize(("first", "second"), [(0.3, 0.6), (0.6, 0.3), (0.4, 0.4)])
def test_earlier_zeros_count_in(
    technique: type, first: float, second: float, twin: Twin, context: Context
) -> None:
    once = technique(max(first, second)).apply(twin, context)
    twice = technique(second).apply(technique(first).apply(twin, context), context)
    np.testing.assert_array_equal(weights(twice), weights(once))
    np.testing.assert_array_equal(masks(twice), masks(once))
    assert len(twice.chain) == 2


@both
def test_masks_survive_training(
    technique: type, task: Classification, twin: Twin, context: Context
) -> None:
    pruned = technique(0.7).apply(twin, context)
    spec = TrainSpec(epochs=3, lr=0.1, momentum=0.9, weight_decay=0.1, precision="float32")
    made = training.fit(pruned, context.train, task, spec=spec, threads=1).twin
    zeros = weights(pruned) == 0
    assert not weights(made)[zeros].any()
    assert (weights(made)[~zeros] != weights(pruned)[~zeros]).mean() > 0.9, "the rest has moved"
    np.testing.assert_array_equal(masks(made), ~zeros)


@both
def test_zeros_are_reported_as_zeros(
    technique: type, twin: Twin, context: Context, baseline: Deployable, tmp_path
) -> None:
    pruned = technique(0.5).apply(twin, context)
    files = {
        "baseline": baseline.save(tmp_path / "baseline"),
        "pruned": deploy(pruned, context).save(tmp_path / "pruned"),
    }
    full, sparse = (size.sizes(file) for file in files.values())
    ops = [
        operations.totals(operations.layers(d.model)) for d in (baseline, deploy(pruned, context))
    ]
    assert ops[0] == ops[1], "a dense kernel multiplies zeros too"
    assert sparse["disk_bytes"] < full["disk_bytes"], "a bit each, instead of 32 for the zeros"
    assert sparse["parameters"] == full["parameters"]
    zeros = int((weights(pruned) == 0).sum())
    assert full["nonzero"] - sparse["nonzero"] == zeros
    assert sparse["sparsity"] - full["sparsity"] == pytest.approx(zeros / full["parameters"])
    assert sparse["zip_bytes"] < 0.75 * full["zip_bytes"]


@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_a_pruned_resnet20_is_as_small_as_its_weights_without_zeros(
    ratio: float, context: Context
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build("resnet20_cifar", (3, 32, 32), {"num_classes": 4})
    twin = Twin.of(model.eval(), shape=(3, 32, 32))
    full, sparse = (
        deploy(network, context).model.ByteSize()
        for network in (twin, PruneL1(ratio).apply(twin, context))
    )
    count = 432 + 6 * 2304 + 4608 + 5 * 9216 + 18432 + 5 * 36864 + 256
    gain = round(ratio * count) * 4 - count / 8
    assert full - sparse == pytest.approx(gain, abs=1000), "some nodes, and layers with few zeros"


def _linear(values: np.ndarray) -> Twin:
    layer = nn.Linear(values.size, 1, bias=False)
    layer.weight = nn.Parameter(torch.from_numpy(values)[None])
    return Twin.of(layer, shape=(1, 1, values.size))


@given(
    values=st.lists(st.integers(1, 10**6), min_size=1, max_size=40, unique=True),
    ratio=st.floats(0, 0.99),
    signs=st.randoms(use_true_random=False),
)
def test_any_ratio_of_any_weights(values: list[int], ratio: float, signs, context: Context) -> None:
    row = np.array([v * signs.choice([-1, 1]) for v in values], dtype=np.float32)
    twin = _linear(row)
    count = round(ratio * row.size)
    if count == row.size:
        with pytest.raises(NetzipError, match="leaves no weight in layer ''"):
            PruneL1(ratio).apply(twin, context)
        return
    kept = np.sort(np.argsort(np.abs(row))[count:])
    made = PruneL1(ratio).apply(twin, context).model.state_dict()["weight"].numpy()[0]
    np.testing.assert_array_equal(np.flatnonzero(made), kept)
    np.testing.assert_array_equal(made[kept], row[kept])
    chance = PruneRandom(ratio).apply(twin, context).model.state_dict()["weight"].numpy()[0]
    assert (chance == 0).sum() == count


@both
def test_a_network_without_weights_is_refused(technique: type, context: Context) -> None:
    bare = Twin.of(nn.Sequential(nn.Flatten(), nn.ReLU()), shape=(1, 2, 2))
    with pytest.raises(NetzipError, match=r"^prune_\w+\(0.3\): the network has no convolution"):
        technique().apply(bare, context)


def test_what_is_prunable() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.ConvTranspose2d(4, 4, 1), nn.LayerNorm(3)),
        nn.Conv1d(1, 1, 1),
        nn.Linear(2, 2),
    )
    assert [name for name, _ in prunable(model)] == ["0", "2.0", "3", "4"]
    model[4].weight = nn.Parameter(torch.ones(2, 2))
    tied = nn.Sequential(*model, nn.Linear(2, 2))
    tied[5].weight = tied[4].weight
    assert [name for name, _ in prunable(tied)] == ["0", "2.0", "3", "4"]
