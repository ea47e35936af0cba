"""One bit a weight: which layers, how large, how it runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics import operations
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.binarise import Binarise
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.techniques.ptq import PTQ
from netzip_mlflow.twin import Twin

Optimised = Callable[[onnx.ModelProto], list[str]]


def test_each_channel_has_two_values(twin: Twin, context: Context) -> None:
    made = Binarise(epochs=1).apply(twin, context)
    assert {name: grid.form for name, grid in made.grids.items()} == {"conv2": "binary"}
    weight = made.model.get_parameter("conv2.weight").detach()
    for channel in weight:
        low, high = channel.unique().tolist()
        assert low == -high
    assert len(made.model.get_parameter("conv1.weight").detach()[0].unique()) > 2


def test_it_starts_from_the_mean_magnitude(twin: Twin, context: Context) -> None:
    """XNOR-Net, equation 6: the best scale for the sign of w is the mean of |w|."""
    from netzip_mlflow.quantisation import grids

    weight = twin.model.get_parameter("conv2.weight").detach()
    scale = grids.Levels(weight, "binary").scale.detach()
    np.testing.assert_allclose(scale, weight.abs().flatten(1).mean(1), rtol=0.02)


@pytest.mark.parametrize(
    ("layers", "names"),
    [("conv2", {"conv2"}), ("conv*", {"conv1", "conv2"}), ("conv1, linear", {"conv1", "linear"})],
)
def test_layers_are_chosen_by_name(
    layers: str, names: set[str], twin: Twin, context: Context
) -> None:
    assert set(Binarise(layers=layers, epochs=1).apply(twin, context).grids) == names


def test_a_name_that_no_layer_has(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError, match=r"binarise.layers: 'conv3' .*did you mean 'conv2'"):
        Binarise(layers="conv3").apply(twin, context)


def test_pruned_layers_are_refused(twin: Twin, context: Context) -> None:
    with pytest.raises(
        NetzipError, match=r"^binarise\.layers: layer conv2: its pruned weights are zero"
    ):
        Binarise().apply(PruneL1(0.5).apply(twin, context), context)


def test_the_rest_gets_what_ptq_says(twin: Twin, context: Context, optimised: Optimised) -> None:
    made = PTQ(bits=4, edges=4).apply(Binarise(epochs=1).apply(twin, context), context)
    stored = [8 * n.weight_bytes / n.parameters for n in operations.layers(made.model)]
    assert [round(bits) for bits in stored] == [4, 1, 4]
    kinds = optimised(made.model)
    assert (kinds.count("QLinearConv"), kinds.count("QGemm")) == (2, 1)


def test_it_learns(fresh_twin: Twin, task: Classification, context: Context) -> None:
    """From random weights, all three layers at one bit: well above one in four."""
    made = Binarise(layers="*", epochs=6, lr=0.1, batch=32).apply(fresh_twin, context)
    assert task.validate(made.network()) > 0.5


def test_a_wide_layer_takes_a_25th(context: Context, task: Classification) -> None:
    """64 channels of 3x3: weights and scales, against four bytes a weight."""
    from netzip_mlflow.quantisation import grids
    from netzip_mlflow.twin import Architecture, InputSpec

    architecture = Architecture("factory", "tiny_networks:tiny", {**task.arguments, "width": 64})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture.build(task.shape, task.outputs)
    spec = InputSpec(task.shape, (0.4,) * 3, (0.2,) * 3)
    wide = Twin(model, spec, task.outputs, architecture, task.facts)
    held = grids.put(wide, grids.levels(wide, {"conv2": "binary"}))
    made = PTQ().apply(grids.take(held, wide), context)
    layer = operations.layers(made.model)[1]
    scales = 2 * 128  # float16, one a channel
    assert (128 * 64 * 9 / 8 + scales) * 25 <= 4 * 128 * 64 * 9
    assert layer.weight_bytes + scales <= 4 * 128 * 64 * 9 / 25


def test_zeros_of_layers_that_it_leaves_alone_stay_zero(twin: Twin, context: Context) -> None:
    pruned = PruneL1(ratio=0.5, keep="conv2").apply(twin, context)
    made = Binarise(layers="conv2", epochs=2, lr=0.05).apply(pruned, context)
    moved = 0
    for key, mask in pruned.masks.items():
        weight = made.model.get_parameter(key)
        assert not weight[~mask].any()
        moved += int((weight != pruned.model.get_parameter(key)).sum())
    assert moved, "it was trained"
