"""Factorisation: optimal errors, Tucker by numpy, costs counted by torch, exact rebuilding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from netzip_mlflow.edits import low_rank
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.models import build
from netzip_mlflow.signature import OutputSpec
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.factorise import Factorise
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Architecture, Grid, InputSpec, Twin

SCORES, FACTS = OutputSpec.of(scores=(4,)), {"classes": ["0", "1", "2", "3"]}


def _kernel(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _macs(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """By torch's own counter; two operations a multiply-accumulate."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def _resnet8(seed: int = 0, name: str = "resnet8", **arguments: Any) -> Twin:
    architecture = Architecture("name", name, {"num_classes": 4, **arguments})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = architecture.build((3, 32, 32), SCORES)
    spec = InputSpec((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    return Twin(model, spec, SCORES, architecture, FACTS)


# --- arithmetic -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (16, 16)])
@pytest.mark.parametrize("rank", [1, 5, 16])
def test_the_error_is_the_tail_of_the_singular_values(shape: tuple[int, int], rank: int) -> None:
    """Eckart and Young: no matrix of this rank is closer."""
    matrix = _kernel(*shape)
    expand, reduce = low_rank.svd(matrix, rank)
    assert (expand.shape, reduce.shape) == ((shape[0], rank), (rank, shape[1]))
    values = np.linalg.svd(matrix.numpy(), compute_uv=False)
    error = float((matrix - expand @ reduce).norm())
    assert error == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), abs=1e-10)
    np.testing.assert_allclose(expand.norm(dim=0), reduce.norm(dim=1), rtol=1e-6)


def test_a_matrix_of_zeros_stays_finite() -> None:
    expand, reduce = low_rank.svd(torch.zeros(4, 6, dtype=torch.float64), 2)
    assert not (expand @ reduce).any()


def _rebuilt(kernel: torch.Tensor, ranks: tuple[int, int], sweeps: int) -> torch.Tensor:
    left, core, right = low_rank.tucker2(kernel, ranks, sweeps)
    return torch.einsum("or,rskl,is->oikl", left, core, right)


def _hosvd(kernel: np.ndarray, ranks: tuple[int, int]) -> np.ndarray:
    """By numpy's SVD of the unfoldings, projecting side by side."""
    for axis, rank in enumerate(ranks):
        matrix = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
        left = np.linalg.svd(matrix, full_matrices=False)[0][:, :rank]
        if axis == 0:
            first = left
        else:
            second = left
    return np.einsum("oa,pa,pjkl,jb,ib->oikl", first, first, kernel, second, second, optimize=True)


@pytest.mark.parametrize("ranks", [(4, 3), (12, 2), (1, 1), (12, 8), (5, 8)])
def test_without_sweeps_tucker_is_the_hosvd(ranks: tuple[int, int]) -> None:
    kernel = _kernel(12, 8, 3, 3)
    np.testing.assert_allclose(
        _rebuilt(kernel, ranks, 0).numpy(), _hosvd(kernel.numpy(), ranks), atol=1e-10
    )


def test_sweeps_only_come_closer_and_stay_above_the_bound() -> None:
    """No Tucker approximation beats the larger of its two unfoldings' tails."""
    kernel = _kernel(12, 8, 3, 3)
    errors = [float((kernel - _rebuilt(kernel, (4, 3), n)).norm()) for n in range(6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]
    tails = []
    for axis, rank in enumerate((4, 3)):
        matrix = np.moveaxis(kernel.numpy(), axis, 0).reshape(kernel.shape[axis], -1)
        values = np.linalg.svd(matrix, compute_uv=False)
        tails.append(float((values[rank:] ** 2).sum()))
    assert max(tails) <= errors[-1] ** 2
    assert errors[0] ** 2 <= sum(tails) + 1e-9


def test_a_kernel_of_low_rank_is_found_exactly() -> None:
    core, left, right = _kernel(3, 2, 3, 3), _kernel(12, 3, seed=1), _kernel(8, 2, seed=2)
    kernel = torch.einsum("or,rskl,is->oikl", left, core, right)
    torch.testing.assert_close(_rebuilt(kernel, (3, 2), 1), kernel, atol=1e-9, rtol=0)


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "oblong": {"kernel_size": (1, 5), "padding": (0, 2), "stride": (2, 1)},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 2, "bias": False},
    "same": {"kernel_size": 3, "padding": "same"},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "circular": {"kernel_size": 5, "padding": 2, "padding_mode": "circular", "stride": 2},
}


@pytest.mark.parametrize("ranks", [(5, 4), (12, 4), (5, 8)])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_split_convolution_computes_its_closest_kernel(
    options: dict[str, Any], ranks: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, **options)
    made = low_rank.factorised(layer, ranks, 2)
    assert [n for n, _ in made.named_children()] == (
        ["reduce"] * (ranks[1] < 8) + ["core"] + ["expand"] * (ranks[0] < 12)
    )
    kernel = _rebuilt(layer.weight.detach().double(), ranks, 2)
    images = torch.rand(2, 8, 9, 11)
    with torch.no_grad():
        given = made(images)
        layer.weight.copy_(kernel)
        torch.testing.assert_close(given, layer(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": 1}, {"bias": False}], ids=str)
def test_a_split_1x1_convolution_computes_its_closest_matrix(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 1, **options)
    made = low_rank.factorised(layer, (3,), 0)
    assert all(part.kernel_size == (1, 1) for part in made)
    left, values, right = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
    closest = (left[:, :3] * values[:3]) @ right[:3]
    images = torch.rand(2, 8, 5, 6)
    with torch.no_grad():
        given = made(images)
        layer.weight.copy_(closest.view(12, 8, 1, 1))
        torch.testing.assert_close(given, layer(images), atol=1e-5, rtol=1e-5)


# --- which layers, and what they cost -------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_parameters_and_macs_fall_as_computed(ratio: float, context: Context) -> None:
    twin = _resnet8()
    made = Factorise(ratio=ratio).apply(twin, context)
    (edit,) = made.edits
    seen = low_rank.positions(twin.model, twin.input.shape)
    macs, parameters = (
        _macs(twin.model, (3, 32, 32)),
        sum(p.numel() for p in twin.model.parameters()),
    )
    for name, ranks in edit.data["layers"].items():
        weight = twin.model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        saved = low_rank.cost(weight, None, seen[name]) - low_rank.cost(
            weight, tuple(ranks), seen[name]
        )
        assert saved > 0
        macs -= saved
        outs, ins, area = *weight.shape[:2], weight[0, 0].numel()
        if len(ranks) == 1:
            parameters += ranks[0] * (outs + ins) - outs * ins
        else:
            left, right = ranks
            parameters += left * right * area - outs * ins * area
            parameters += (left * outs if left < outs else 0) + (right * ins if right < ins else 0)
    assert _macs(made.model, (3, 32, 32)) == macs
    assert sum(p.numel() for p in made.model.parameters()) == parameters


def test_full_rank_changes_nothing(twin: Twin, context: Context) -> None:
    for full in (Factorise(ratio=1.0), Factorise(method="energy", energy=1.0)):
        made = full.apply(twin, context)
        assert made.edits == ()
        before, after = twin.model.state_dict(), made.model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_layer_that_is_dearer_by_macs_stays() -> None:
    """Stride 2: a first 1x1 works on four times the places, so it is the costs that decide."""
    weight = _kernel(8, 8, 3, 3)
    even, halved = low_rank.Positions(64, 64), low_rank.Positions(256, 64)
    # 7 x 7 x 9 + 7 x 8 + 7 x 8 = 553 of 576 places; with stride 441 + 4 x 56 + 56 = 721
    assert low_rank.cost(weight, (7, 7), even) == 553 * 64
    assert low_rank.cost(weight, (7, 7), halved) == 721 * 64
    assert low_rank.cheapest(weight, (7, 7), even) == (7, 7)
    assert low_rank.cheapest(weight, (7, 7), halved) == (7, 8), "the input's side stays whole"
    assert low_rank.cheapest(weight, (8, 7), halved) is None


def test_the_first_layer_can_keep_its_few_channels() -> None:
    weight, seen = _kernel(32, 3, 3, 3), low_rank.Positions(1024, 1024)
    # two layers: 27 x 8 + 8 x 32 = 472 of 864
    assert low_rank.cheapest(weight, (8, 3), seen) == (8, 3)
    assert low_rank.cost(weight, (8, 3), seen) == 472 * 1024
    made = low_rank.factorised(nn.Conv2d(3, 32, 3), (8, 3), 2)
    assert [n for n, _ in made.named_children()] == ["core", "expand"]
    # 9 x 32 is less than 9 x 20 + 20 x 32
    assert low_rank.cheapest(weight, (20, 1), seen) == (32, 1)


def test_grouped_shared_and_derived_layers_are_left_alone() -> None:
    class Own(nn.Linear):
        """Reads its weight in a way of its own."""

    once = nn.Linear(16, 16)
    tied = nn.Linear(16, 16)
    tied.weight = nn.Parameter(torch.zeros(16, 16))
    other = nn.Linear(16, 16)
    other.weight = tied.weight
    model = nn.ModuleDict(
        {
            "depthwise": nn.Conv2d(16, 16, 3, groups=16),
            "grouped": nn.Conv2d(16, 16, 1, groups=2),
            "own": Own(16, 16),
            "computed": nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)),
            "attention": nn.MultiheadAttention(16, 2),
            "tied": tied,
            "other": other,
            "plain": once,
            "twice": (twice := nn.Conv2d(16, 16, 3)),
            "again": twice,
        }
    )
    assert low_rank.factorisable(model).keys() == {"plain"}


def test_a_layer_that_is_read_and_not_called_is_named(context: Context) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(48, 48)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.flatten(1)) * self.linear.weight.mean()

    twin = Twin.of(Reader(), shape=(3, 4, 4))
    with pytest.raises(NetzipError, match=r"other than by calling it.*name it in keep"):
        Factorise(ratio=0.25).apply(twin, context)
    assert Factorise(ratio=0.25, keep="linear").apply(twin, context).edits == ()


@pytest.mark.parametrize(
    ("given", "split"),
    [
        ({"layers": "layer3.conv2"}, {"layer3.conv2"}),
        (
            {"layers": "layer3.conv?, layer2.conv2"},
            {"layer3.conv1", "layer3.conv2", "layer2.conv2"},
        ),
        ({"layers": "layer3.*", "keep": "*.conv1,*.shortcut"}, {"layer3.conv2"}),
    ],
)
def test_layers_and_keep_choose(given: dict[str, str], split: set[str], context: Context) -> None:
    made = Factorise(ratio=0.25, **given).apply(_resnet8(), context)
    assert made.edits[0].data["layers"].keys() == split
    assert {
        n.removesuffix(".expand") for n, _ in made.model.named_modules() if "expand" in n
    } == split


@pytest.mark.parametrize("key", ["layers", "keep"])
def test_a_pattern_that_names_nothing_is_an_error(key: str, context: Context) -> None:
    given: dict[str, Any] = {key: "layer3.conv2, layer2.cnv1"}
    with pytest.raises(NetzipError, match=rf"factorise: {key}: 'layer2.cnv1'.*mean 'layer2.conv1'"):
        Factorise(**given).apply(_resnet8(), context)


# --- methods --------------------------------------------------------------------------------


def test_energy_and_vbmf_find_a_rank_that_is_there(context: Context) -> None:
    twin = _resnet8()
    core, left, right = _kernel(6, 5, 3, 3), _kernel(64, 6, seed=1), _kernel(64, 5, seed=2)
    kernel = torch.einsum("or,rskl,is->oikl", left, core, right)
    noise = 0.05 * _kernel(64, 64, 3, 3, seed=3)
    with torch.no_grad():
        twin.model.get_parameter("layer3.conv2.weight").copy_(kernel + noise * kernel.std())
    for found in (
        Factorise(method="vbmf", layers="layer3.conv2"),
        Factorise(method="energy", energy=0.99, layers="layer3.conv2"),
    ):
        made = found.apply(twin, context)
        assert made.edits[0].data == {"layers": {"layer3.conv2": [6, 5]}}


@pytest.mark.parametrize("method", ["energy", "vbmf"])
def test_a_rank_of_zero_is_an_error(method: str, context: Context) -> None:
    twin = _resnet8()
    with torch.no_grad():
        twin.model.get_parameter("layer3.conv2.weight").zero_()
    with pytest.raises(NetzipError, match=rf"layer3\.conv2: method: {method} gives rank 0"):
        Factorise(method=method, layers="layer3.conv2").apply(twin, context)
    unasked = Factorise(method=method, keep="layer1.*").apply(twin, context)
    assert "layer3.conv2.core" not in dict(unasked.model.named_modules()), "left alone"


def test_masks_and_grids_are_refused(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError, match=r"factorise: the network carries masks on conv1\.weight"):
        Factorise().apply(PruneL1(0.5).apply(twin, context), context)
    grids = {"conv1": Grid("int8", torch.ones(8))}
    with pytest.raises(NetzipError, match="factorise: the network carries grids on conv1"):
        Factorise().apply(twin.replace(grids=grids), context)


def test_the_layout_of_the_weights_does_not_matter(twin: Twin, context: Context) -> None:
    last = twin.copy()
    last.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    assert Factorise().apply(last, context).digest() == Factorise().apply(twin, context).digest()


# --- rebuilding -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet8", "resnet20_cifar"])
def test_twice_split_it_is_saved_and_rebuilt(name: str, context: Context, tmp_path: Path) -> None:
    twin = _resnet8(name=name)
    made = Factorise(ratio=0.25).apply(Factorise(ratio=0.5).apply(twin, context), context)
    assert [edit.technique for edit in made.edits] == ["factorise"] * 2
    assert json.loads(json.dumps(made.edits[1].data)) == made.edits[1].data
    made.save(tmp_path)
    again = Twin.load(tmp_path)
    assert again.digest() == made.digest()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.network()(images), made.network()(images))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"layer3.conv2": [0, 5]}, r"factorise.layers.layer3.conv2: ranks \[0, 5\].*1 to 64 and 1"),
        ({"layer3.conv2": [3]}, r"factorise.layers.layer3.conv2: ranks \[3\]"),
        ({"linear": [5]}, r"factorise.layers.linear: ranks \[5\] given; allowed: 1 to 4"),
        ({"layer3.cnv2": [3, 3]}, r"layer3.cnv2: no such layer.*did you mean 'layer3.conv2'"),
    ],
)
def test_edits_that_do_not_fit_are_refused(layers: dict[str, list[int]], message: str) -> None:
    model = build("resnet8", (3, 32, 32), {"num_classes": 4})
    with pytest.raises(InputError, match=message):
        low_rank.replay(model, {"layers": layers})


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"energy": 0.9}, "energy"),
        ({"method": "vbmf", "ratio": 0.5}, "ratio"),
        ({"method": "energy", "energy": 0.9}, None),
        ({"ratio": 0.5}, None),
        ({"method": "vbmf"}, None),
    ],
)
def test_a_number_that_the_method_does_not_read_is_refused(
    given: dict[str, object], wrong: str | None
) -> None:
    found = [str(p.where) for p in Factorise.problems(given, "a[0].factorise")]
    assert found == ([f"a[0].factorise.{wrong}"] if wrong else [])
