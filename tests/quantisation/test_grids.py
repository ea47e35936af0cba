"""Weights on a grid while training: values, gradients, what is left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from netzip_mlflow.deployable.encodings import FORMS
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.quantisation import grids, rounding
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Twin

LEVELS = sorted(FORMS.keys() - {"kernels"})


def weight(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", LEVELS)
def test_the_rounded_weight_is_scale_times_a_code(form: str) -> None:
    given = weight()
    rule = grids.Levels(given, form)
    rounded = rule(given).detach()
    codes = rounded / rule.scale.detach().view(-1, 1, 1, 1)
    whole = torch.round(codes)
    assert torch.allclose(codes, whole, atol=1e-4)
    high = rounding.REDUCED if form == "int8" else FORMS[form].high
    assert whole.abs().max() <= high
    if not FORMS[form].has_zero:
        assert (whole.int() % 2 != 0).all(), "forms without a zero use odd codes"
    expected = rounding.codes(given.flatten(1).numpy(), rule.scale.detach().numpy(), form, high)
    np.testing.assert_array_equal(whole.flatten(1).numpy(), expected)


def test_the_gradient_is_that_of_learned_step_size_quantisation() -> None:
    """Esser et al., equations 3 and 5, element by element, on one channel of int4."""
    given = torch.tensor([[0.32, -0.76, 1.9, -5.0, 0.0]], requires_grad=True)
    rule = grids.Levels(given, "int4")
    rule.scale.data.fill_(0.2)
    rule(given).sum().backward()
    share = given.detach() / 0.2
    inside = share.abs() <= 7
    assert given.grad is not None
    assert torch.equal(given.grad, inside.float()), "straight through within the range"
    step = torch.where(inside, torch.round(share) - share, share.sign() * 7).sum()
    assert rule.scale.grad is not None
    assert float(rule.scale.grad) == pytest.approx(float(step) / (5 * 7) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("form", ["binary", "ternary", "int2"])
def test_few_codes_let_every_weight_change_its_sign(form: str) -> None:
    given = (10 * weight()).requires_grad_()
    grids.Levels(given, form)(given).sum().backward()
    assert given.grad is not None
    assert torch.equal(given.grad, torch.ones_like(given))


@pytest.mark.parametrize("form", LEVELS)
def test_what_is_taken_lies_on_the_grid_and_computes_the_same(
    form: str, twin: Twin, context: Context, tmp_path: Path
) -> None:
    forms = dict.fromkeys(grids.layers(twin, context.exports), form)
    held = grids.put(twin, grids.levels(twin, forms))
    images = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    before = held.network()(images)
    made = grids.take(held, twin)
    assert torch.equal(made.network()(images), before)
    assert set(made.grids) == {"conv1", "conv2", "linear"}
    for name, grid in made.grids.items():
        module = made.model.get_submodule(name)
        assert not parametrize.is_parametrized(module)
        values = made.model.get_parameter(f"{name}.weight")
        scale = grid.scale.view(-1, *(1,) * (values.ndim - 1))
        assert torch.allclose(grid.codes(values) * scale, values, rtol=1e-5, atol=0)
    made.save(tmp_path)
    again = Twin.load(tmp_path, ["tiny_networks:tiny"])
    assert again.digest() == made.digest()
    assert {k: g.form for k, g in again.grids.items()} == forms


def test_zeros_of_a_pruning_stay(twin: Twin, context: Context) -> None:
    pruned = PruneL1(0.6).apply(twin, context)
    forms = dict.fromkeys(grids.layers(twin, context.exports), "int4")
    made = grids.take(grids.put(pruned, grids.levels(pruned, forms)), pruned)
    for name, mask in pruned.masks.items():
        assert not made.model.get_parameter(name)[~mask].any()
    assert made.masks.keys() == pruned.masks.keys()
    with pytest.raises(NetzipError, match=r"conv1: its pruned weights are zero, for which int2"):
        grids.levels(pruned, {"conv1": "int2"})


def test_grids_that_are_there_are_kept(twin: Twin, context: Context) -> None:
    first = grids.take(grids.put(twin, grids.levels(twin, {"conv2": "binary"})), twin)
    both = grids.take(grids.put(first, grids.levels(first, {"conv1": "int4"})), first)
    assert {k: g.form for k, g in both.grids.items()} == {"conv1": "int4", "conv2": "binary"}
    one, two = (t.model.get_parameter("conv2.weight") for t in (first, both))
    assert torch.allclose(one, two, rtol=1e-4)
    assert "conv2" in grids.layers(twin, context.exports)
