"""L1 pruning picks the smallest weights over all layers together."""

from __future__ import annotations

import numpy as np
import pytest

from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Twin


def _row(twin: Twin) -> np.ndarray:
    state = twin.model.state_dict()
    return np.concatenate(
        [state[f"{n}.weight"].numpy().ravel() for n in ("conv1", "conv2", "linear")]
    )


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_the_smallest_of_all_layers_go(ratio: float, twin: Twin, context: Context) -> None:
    before, after = _row(twin), _row(PruneL1(ratio).apply(twin, context))
    order = np.argsort(np.abs(before), kind="stable")
    count = round(ratio * before.size)
    np.testing.assert_array_equal(np.flatnonzero(after == 0), np.sort(order[:count]))


def test_it_is_global_not_per_layer(twin: Twin, context: Context) -> None:
    made = PruneL1(0.5).apply(twin, context)
    shares = [float((~mask).float().mean()) for mask in made.masks.values()]
    assert max(shares) - min(shares) > 0.05


def test_the_seed_plays_no_part(twin: Twin, context: Context) -> None:
    from dataclasses import replace

    one = PruneL1(0.5).apply(twin, replace(context, seed=1))
    two = PruneL1(0.5).apply(twin, replace(context, seed=2))
    assert one.digest() == two.digest()


def test_label() -> None:
    assert PruneL1().label() == "prune_l1(0.3)"
    assert PruneL1(0.25).label() == "prune_l1(0.25)"
