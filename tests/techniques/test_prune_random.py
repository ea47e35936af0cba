"""Random pruning: seeded, and blind to the weights' size."""

from __future__ import annotations

from dataclasses import replace

import torch

from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.prune_random import PruneRandom
from netzip_mlflow.twin import Twin


def test_the_seed_chooses(twin: Twin, context: Context) -> None:
    def pruned(seed: int) -> Twin:
        return PruneRandom(0.5).apply(twin, replace(context, seed=seed))

    assert pruned(1).digest() == pruned(1).digest()
    assert pruned(1).digest() != pruned(2).digest()


def test_size_plays_no_part(twin: Twin, context: Context) -> None:
    louder = twin.copy()
    with torch.no_grad():
        louder.model.get_parameter("linear.weight").mul_(1000)
    one, two = (PruneRandom(0.5).apply(t, context).masks for t in (twin, louder))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_every_layer_loses_about_its_share(twin: Twin, context: Context) -> None:
    made = PruneRandom(0.5).apply(twin, context)
    mask = made.masks["conv2.weight"].float()  # 1,152 weights: 4 standard deviations are 0.06
    assert abs(float(mask.mean()) - 0.5) < 0.06


def test_label() -> None:
    assert PruneRandom(0.75).label() == "prune_random(0.75)"
