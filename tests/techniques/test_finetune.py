"""Fine-tuning: never worse on validation, masks and teacher untouched, distillation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from netzip_mlflow import techniques
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.recipe import TrainSpec
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.finetune import Finetune
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.twin import Twin


def test_it_recovers_what_pruning_lost(twin: Twin, task: Classification, context: Context) -> None:
    pruned = PruneL1(0.8).apply(twin, context)
    made = Finetune(epochs=5, lr=0.05).apply(pruned, context)
    lost, regained = (task.validate(t.network()) for t in (pruned, made))
    assert regained > lost + 0.1
    for name, mask in pruned.masks.items():
        weight = made.model.get_parameter(name)
        assert not weight[~mask].any(), "the zeros stay"
        assert torch.equal(made.masks[name], mask)


@pytest.mark.parametrize("lr", [0.5, 2.0, 10.0])
def test_it_never_returns_worse_than_it_was_given(
    lr: float, twin: Twin, task: Classification, context: Context
) -> None:
    before = task.validate(twin.network())
    made = Finetune(epochs=1, lr=lr, optimizer="adamw").apply(twin, context)
    assert task.validate(made.network()) >= before


def test_a_ruinous_rate_gives_the_network_back(twin: Twin, context: Context) -> None:
    made = Finetune(epochs=1, lr=10.0, optimizer="adamw").apply(twin, context)
    before, after = twin.model.state_dict(), made.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_divergence_is_said(twin: Twin, context: Context) -> None:
    wild = twin.copy()
    with torch.no_grad():
        wild.model.get_parameter("linear.weight").mul_(1e38)
    with pytest.raises(NetzipError, match=r"training diverged in epoch 1: the loss is (nan|inf)"):
        Finetune(lr=10.0).apply(wild, context)


def test_the_teacher_teaches_and_stays(twin: Twin, fresh_twin: Twin, context: Context) -> None:
    before = twin.digest(), {k: v.stride() for k, v in twin.model.state_dict().items()}
    alone = Finetune(epochs=4, lr=0.1).apply(fresh_twin, context)
    taught = Finetune(epochs=4, lr=0.1, teacher="baseline").apply(fresh_twin, context)
    assert taught.digest() != alone.digest()
    after = twin.digest(), {k: v.stride() for k, v in twin.model.state_dict().items()}
    assert after == before
    assert not any(m.training for m in twin.model.modules())
    assert all(p.grad is None for p in twin.model.parameters())


def test_alpha_one_copies_the_teacher_not_the_labels(
    twin: Twin, fresh_twin: Twin, task: Classification, context: Context
) -> None:
    """With wrong labels and alpha 1 the student still learns: labels play no part."""
    split = context.train
    rolled = replace(split, targets=np.roll(split.targets, 1))
    wrong = replace(context, train=rolled)
    tuned = Finetune(epochs=8, lr=0.1, batch=32, teacher="baseline", alpha=1.0)
    right = tuned.apply(fresh_twin, context)
    anyhow = tuned.apply(fresh_twin, wrong)
    one, two = right.model.state_dict(), anyhow.model.state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert task.validate(anyhow.network()) > 0.6


def test_without_a_teacher_it_says_so(twin: Twin, context: Context) -> None:
    with pytest.raises(NetzipError, match="teacher"):
        Finetune(teacher="baseline").apply(twin, replace(context, teacher=None))


def test_features_need_a_teacher(twin: Twin, context: Context) -> None:
    raw = {"candidates": {"c": [{"finetune": {"features": 2.0}}]}}
    (problem,) = techniques.check(raw)
    assert problem.where == "candidates.c[0].finetune.features"
    assert problem.allowed == "teacher: baseline beside it"
    with pytest.raises(NetzipError, match="features: given without teacher"):
        Finetune(features=2.0).apply(twin, context)


def test_features_of_a_teacher_count(twin: Twin, fresh_twin: Twin, context: Context) -> None:
    plain, matched = (
        Finetune(epochs=4, lr=0.1, batch=32, teacher="baseline", features=features).apply(
            fresh_twin, context
        )
        for features in (0.0, 50.0)
    )
    assert plain.digest() != matched.digest()


def test_epochs_are_logged_and_shown(fresh_twin: Twin, context: Context) -> None:
    logged: list[tuple[str, int]] = []
    shown: list[float] = []
    watched = replace(
        context,
        log=lambda key, _value, step: logged.append((key, step)),
        progress=lambda _what, done: shown.append(done),
    )
    Finetune(epochs=2).apply(fresh_twin, watched)
    keys = ("training/loss", "training/validation")
    assert logged == [(key, step) for step in (1, 2) for key in keys]
    assert shown == sorted(shown)
    assert shown[-1] == 1.0


def test_defaults_agree_with_training() -> None:
    """Both sections of a recipe speak of the same loop: the same words, the same limits."""
    shared = {"batch", "optimizer", "schedule", "weight_decay"}
    assert {k: getattr(Finetune(), k) for k in shared} == {
        k: getattr(TrainSpec(), k) for k in shared
    }


def test_label() -> None:
    assert Finetune().label() == "finetune"
    assert Finetune(teacher="baseline").label() == "finetune(teacher)"
