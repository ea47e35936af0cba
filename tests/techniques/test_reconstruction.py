"""Weights fitted after pruning: exact where they can be, least squares where not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from netzip_mlflow.edits.channels import Removal, remove
from netzip_mlflow.signature import InputSpec, OutputSpec
from netzip_mlflow.techniques import Context, reconstruction
from netzip_mlflow.techniques.prune_channels import PruneChannels
from netzip_mlflow.twin import Twin

SHAPE = (3, 12, 12)


class Plain(nn.Module):
    """Two convolutions, of which one strides, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False)
        self.last = nn.Linear(6 * 36, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.second(functional.relu(self.first(images))))
        return self.last(inner.flatten(1))


class Twice(Plain):
    """The second convolution is computed a second time, for a layer's sake that reads it twice."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shown = functional.relu(self.first(images))
        inner = functional.relu(self.second(shown) + self.second(shown.flip(-1)))
        return self.last(inner.flatten(1))


def made(model: type[Plain] = Plain) -> Twin:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = model().eval()
    return Twin(network, InputSpec(SHAPE, (0.4,) * 3, (0.2,) * 3), OutputSpec.of(scores=(4,)))


def without(twin: Twin, *channels: int) -> tuple[Twin, list[Removal]]:
    """Some channels of the first layer removed."""
    removals = [Removal("first", [*channels])]
    pruned = twin.copy()
    remove(pruned.model, SHAPE, removals)
    return pruned, removals


def fitted(twin: Twin, task, *channels: int) -> tuple[Twin, Twin]:
    """Pruned alone, and pruned and fitted."""
    plain, removals = without(twin, *channels)
    pruned = plain.copy()
    stay = reconstruction.survivors(twin.model, SHAPE, removals)
    context = Context.of(task, twin)
    reconstruction.fit(pruned, twin.copy(), stay, task.split("train"), context)
    return plain, pruned


def off(one: Twin, other: Twin, task, split: str = "train") -> float:
    """The mean squared difference of two networks' answers."""
    images = torch.from_numpy(next(task.split(split).batches(256))[0])
    with torch.no_grad():
        return float(((one.network()(images) - other.network()(images)) ** 2).mean())


def test_who_survives_is_read_off_the_network():
    twin = made()
    stay = reconstruction.survivors(twin.model, SHAPE, [Removal("first", [1, 6])])
    assert {name: kept.tolist() for name, kept in stay.items()} == {
        "first": [0, 2, 3, 4, 5, 7],
        "second": [0, 1, 2, 3, 4, 5],
        "last": [0, 1, 2, 3],
    }


def test_a_channel_that_repeats_another_is_not_missed(task):
    twin = made()
    with torch.no_grad():
        twin.model.first.weight[7] = twin.model.first.weight[0]
        twin.model.first.bias[7] = twin.model.first.bias[0]
    plain, pruned = fitted(twin, task, 7)
    assert off(pruned, twin, task) < 1e-3 * off(plain, twin, task)


def test_what_cannot_be_exact_is_least_squares(task, monkeypatch):
    """Against numpy's own, on patches that torch unfolds."""
    monkeypatch.setattr(reconstruction, "RIDGE", 1e-9)
    twin = made()
    plain, pruned = fitted(twin, task, 1, 4, 5)
    images = torch.from_numpy(next(task.split("train").batches(256))[0])
    pixels = (images - 0.4) / 0.2
    with torch.no_grad():
        inner = functional.relu(plain.model.first(pixels))
        patches = functional.unfold(inner, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1)
        wanted = twin.model.second(functional.relu(twin.model.first(pixels)))
    answers = wanted.flatten(2).transpose(1, 2).flatten(0, 1)
    best, *_ = np.linalg.lstsq(patches.double().numpy(), answers.double().numpy(), rcond=None)
    found = pruned.model.second.weight.detach().flatten(1).numpy()
    np.testing.assert_allclose(found, best.T, atol=1e-3 * np.abs(best).max())
    assert off(pruned, twin, task) < off(plain, twin, task)


def test_a_layer_that_is_computed_twice_stays(task):
    twin = made(Twice)
    plain, pruned = fitted(twin, task, 2)
    assert torch.equal(pruned.model.second.weight, plain.model.second.weight)
    assert not torch.equal(pruned.model.last.weight, plain.model.last.weight)


def test_groups_and_other_paddings_stay():
    for layer in (
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ):
        assert not reconstruction._fits(layer)
    assert reconstruction._fits(nn.Conv2d(4, 4, 3, dilation=2))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 3])
def test_patches_are_what_the_convolution_reads(stride, dilation):
    layer = nn.Conv2d(2, 5, (3, 2), stride=stride, padding=(2, 1), dilation=dilation, bias=False)
    given = torch.randn(3, 2, 11, 9, generator=torch.Generator().manual_seed(0))
    wanted = layer(given)
    places = [(y, x) for y in range(wanted.shape[2]) for x in range(wanted.shape[3])]
    for (y, x), patch in zip(places, reconstruction._patches(layer, given, places), strict=True):
        answer = patch.flatten(1) @ layer.weight.flatten(1).T
        torch.testing.assert_close(answer, wanted[:, :, y, x])


class TestInTheTechnique:
    def test_it_answers_more_like_the_whole_network(self, twin, task):
        context = Context.of(task, twin)
        plain, fitted = (
            PruneChannels(ratio=0.5, round_to=1, reconstruct=count).apply(twin, context)
            for count in (0, 256)
        )
        assert off(fitted, twin, task, "validation") < 0.5 * off(plain, twin, task, "validation")
        for one, other in zip(
            plain.model.state_dict().values(), fitted.model.state_dict().values(), strict=True
        ):
            assert one.shape == other.shape, "the same channels are gone"

    def test_it_is_reloaded_with_its_weights(self, twin, task, tmp_path):
        pruned = PruneChannels(ratio=0.5, reconstruct=64).apply(twin, Context.of(task, twin))
        pruned.save(tmp_path / "twin")
        assert off(Twin.load(tmp_path / "twin", ["tiny_networks:tiny"]), pruned, task) == 0

    def test_the_given_twin_is_untouched(self, twin, task):
        before = copy.deepcopy(twin.model.state_dict())
        PruneChannels(ratio=0.5, reconstruct=64).apply(twin, Context.of(task, twin))
        for name, value in twin.model.state_dict().items():
            assert torch.equal(value, before[name])

    def test_which_images_hangs_on_the_seed_alone(self, twin, task):
        prune = PruneChannels(ratio=0.5, reconstruct=32)
        first, again, other = (
            prune.apply(twin, Context.of(task, twin, seed=seed)) for seed in (0, 0, 1)
        )
        assert first.digest() == again.digest() != other.digest()
