"""Which weights go: as torch's own pruning chooses, per layer or overall, some layers kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.techniques.prune_random import PruneRandom
from netzip_mlflow.twin import Twin

LAYERS = ("conv1", "conv2", "linear")
both = pytest.mark.parametrize("technique", [PruneL1, PruneRandom])
ratios = pytest.mark.parametrize("ratio", [0.25, 0.6, 0.9])


def _theirs(twin: Twin, one: str, technique: type, ratio: float, seed: int) -> nn.Module:
    """The network as torch.nn.utils.prune leaves it."""
    model = copy.deepcopy(twin.model)
    layers = [model.get_submodule(name) for name in LAYERS]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if one == "global":
            method = prune.L1Unstructured if technique is PruneL1 else prune.RandomUnstructured
            pairs = [(layer, "weight") for layer in layers]
            prune.global_unstructured(pairs, pruning_method=method, amount=ratio)
        else:
            method = prune.l1_unstructured if technique is PruneL1 else prune.random_unstructured
            for layer in layers:
                method(layer, "weight", amount=ratio)
    for layer in layers:
        prune.remove(layer, "weight")
    return model


@both
@ratios
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_it_chooses_as_torch_does(
    technique: type, ratio: float, scope: str, twin: Twin, context: Context
) -> None:
    made = technique(ratio, scope=scope).apply(twin, context).model.state_dict()
    theirs = _theirs(twin, scope, technique, ratio, context.seed).state_dict()
    assert made.keys() == theirs.keys()
    assert all(torch.equal(made[name], theirs[name]) for name in made)


@both
@ratios
def test_per_layer_each_loses_its_share(
    technique: type, ratio: float, twin: Twin, context: Context
) -> None:
    made = technique(ratio, scope="layer").apply(twin, context)
    for name in LAYERS:
        mask = made.masks[f"{name}.weight"]
        assert int((~mask).sum()) == round(ratio * mask.numel())


@both
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_memory_layout_plays_no_part(
    technique: type, scope: str, twin: Twin, context: Context
) -> None:
    last = twin.copy()
    last.model.to(memory_format=torch.channels_last)
    assert not last.model.get_parameter("conv2.weight").is_contiguous()
    one, two = (technique(0.6, scope=scope).apply(t, context) for t in (twin, last))
    assert one.digest() == two.digest()


@both
@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("conv1", {"conv1"}),
        ("conv*", {"conv1", "conv2"}),
        (" conv1 , linear ", {"conv1", "linear"}),
        ("conv?,conv1", {"conv1", "conv2"}),
    ],
)
def test_kept_layers_are_left_alone(
    technique: type, keep: str, kept: set[str], twin: Twin, context: Context
) -> None:
    made = technique(0.5, keep=keep).apply(twin, context)
    assert {key.removesuffix(".weight") for key in made.masks} == set(LAYERS) - kept
    before, after = twin.model.state_dict(), made.model.state_dict()
    assert all(torch.equal(before[f"{k}.weight"], after[f"{k}.weight"]) for k in kept)
    zeros = sum(int((~mask).sum()) for mask in made.masks.values())
    assert zeros == round(0.5 * sum(mask.numel() for mask in made.masks.values()))


def test_what_is_kept_must_be_there(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError) as caught:
        PruneL1(0.5, keep="conv1,liner").apply(twin, context)
    assert str(caught.value) == (
        "prune_l1(0.5): keep: 'liner' is no layer of the network; allowed: conv1, conv2, linear,"
        " or patterns of them (did you mean 'linear'?)"
    )
    with pytest.raises(NetzipError, match=r"keep: 'fc\*' is no layer"):
        PruneRandom(0.5, keep="fc*").apply(twin, context)
    with pytest.raises(NetzipError, match=r"keep: '\*' leaves no layer to prune"):
        PruneL1(0.5, keep="*").apply(twin, context)


@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_that_would_be_emptied_is_named(masked: bool, twin: Twin, context: Context) -> None:
    faint = twin.copy()
    with torch.no_grad():
        faint.model.get_parameter("linear.weight").mul_(1e-6)  # the least, all 64 of them
    origin = PruneL1(0.01).apply(faint, context) if masked else faint
    with pytest.raises(NetzipError) as caught:
        PruneL1(0.3).apply(origin, context)
    assert str(caught.value) == (
        "prune_l1(0.3): ratio: 0.3 leaves no weight in layer 'linear', whose output would be"
        " constant; allowed: a lower ratio, scope: layer, or keep: linear"
    )
    for technique in (PruneL1(0.3, keep="linear"), PruneL1(0.3, scope="layer")):
        made = technique.apply(origin, context)
        assert made.model.get_parameter("linear.weight").any()


def test_a_ratio_that_empties_a_tiny_layer_is_refused_per_layer_too(context: Context) -> None:
    tiny = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Linear(1, 1))
    twin = Twin.of(tiny, shape=(1, 2, 2))
    with pytest.raises(NetzipError, match=r"no weight in layer '2'.*allowed: a lower ratio, or"):
        PruneL1(0.6, scope="layer").apply(twin, context)


@both
def test_a_shared_weight_is_pruned_once(technique: type, context: Context) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
            self.two.weight = self.one.weight

    twin = Twin.of(Tied(), shape=(1, 1, 8), outputs=OutputSpec.of(scores=(8,)))
    made = technique(0.5).apply(twin, context)
    assert list(made.masks) == ["one.weight"]
    weight = made.model.get_parameter("one.weight")
    assert made.model.two.weight is weight  # type: ignore[union-attr]
    assert int((weight == 0).sum()) == 32


def test_labels_say_what_differs() -> None:
    assert PruneL1(0.8, scope="layer").label() == "prune_l1(0.8, per layer)"
    assert (
        PruneRandom(0.8, scope="layer", steps=4).label() == "prune_random(0.8, per layer, 4 steps)"
    )
    assert PruneL1(0.8, steps=4).label() == "prune_l1(0.8, 4 steps)"
