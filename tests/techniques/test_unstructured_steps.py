"""Gradual pruning: the cubic schedule, nested masks, training between the steps."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.techniques.prune_random import PruneRandom
from netzip_mlflow.techniques.trained import Taught
from netzip_mlflow.techniques.unstructured import schedule
from netzip_mlflow.twin import Twin

both = pytest.mark.parametrize("technique", [PruneL1, PruneRandom])


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Twin, Twin]]:
    """Every training that happens, as (twin before, twin after)."""
    seen: list[tuple[Twin, Twin]] = []
    train = Taught.train

    def watched(self: Taught, twin: Twin, context: Context) -> Twin:
        seen.append((twin, train(self, twin, context)))
        return seen[-1][1]

    monkeypatch.setattr(Taught, "train", watched)
    return seen


def _zeros(twin: Twin) -> dict[str, np.ndarray]:
    return {name: ~mask.numpy() for name, mask in twin.masks.items()}


def _share(zeros: dict[str, np.ndarray]) -> float:
    return sum(z.sum() for z in zeros.values()) / sum(z.size for z in zeros.values())


@both
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_density_follows_the_schedule_and_masks_nest(
    technique: type, scope: str, between: list[tuple[Twin, Twin]], twin: Twin, context: Context
) -> None:
    made = technique(0.8, scope=scope, steps=4).apply(twin, context)
    states = [before for before, _ in between] + [made]
    # 0.8 - 0.8 (1 - t/4)^3, worked out by hand; 1,432 weights
    for state, share in zip(states, (0.4625, 0.7, 0.7875, 0.8), strict=True):
        zeros = _zeros(state)
        assert _share(zeros) == pytest.approx(share, abs=1.5 / 64)
        if scope == "global":
            assert sum(z.sum() for z in zeros.values()) == round(share * 1432)
        else:
            assert {n: z.sum() for n, z in zeros.items()} == {
                n: round(share * z.size) for n, z in zeros.items()
            }
        for name, zero in zeros.items():
            assert not state.model.get_parameter(name).detach().numpy()[zero].any()
    for earlier, later in itertools.pairwise(states):
        before, after = _zeros(earlier), _zeros(later)
        assert all((before[name] <= after[name]).all() for name in before)


@both
def test_training_between_the_steps_moves_what_is_left(
    technique: type, between: list[tuple[Twin, Twin]], twin: Twin, context: Context
) -> None:
    technique(0.8, steps=3, epochs=4, lr=0.1).apply(twin, context)
    assert len(between) == 2
    moved = []
    for before, after in between:
        for name, mask in before.masks.items():
            assert torch.equal(after.masks[name], mask)
            assert not after.model.get_parameter(name)[~mask].any()
        one, two = before.model.state_dict(), after.model.state_dict()
        moved.append(any(not torch.equal(one[k], two[k]) for k in one))
    assert any(moved)


def test_gradual_beats_one_shot_here(twin: Twin, task: Classification, context: Context) -> None:
    at_once = PruneL1(0.8).apply(twin, context)
    gradual = PruneL1(0.8, steps=4, epochs=4, lr=0.1).apply(twin, context)
    one, two = (task.validate(t.network()) for t in (at_once, gradual))
    assert two > one + 0.1


def test_earlier_zeros_are_where_it_starts(
    between: list[tuple[Twin, Twin]], twin: Twin, context: Context
) -> None:
    origin = PruneL1(0.5).apply(twin, context)
    made = PruneL1(0.9, steps=2).apply(origin, context)
    shares = [_share(_zeros(state)) for state in (between[0][0], made)]
    assert shares == pytest.approx([0.9 - 0.4 * 0.5**3, 0.9], abs=1 / 1432)
    assert made.chain == ("prune_l1(0.5)", "prune_l1(0.9, 2 steps)")
    less = PruneL1(0.3, steps=3).apply(origin, context)
    assert all(torch.equal(less.masks[name], mask) for name, mask in origin.masks.items())


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_one_step_trains_nothing(
    ratio: float, between: list[tuple[Twin, Twin]], twin: Twin, context: Context
) -> None:
    made = PruneL1(ratio, epochs=9, teacher="baseline").apply(twin, context)
    assert between == []
    assert made.model.state_dict().keys() == twin.model.state_dict().keys()


def test_the_teacher_is_the_baseline(
    between: list[tuple[Twin, Twin]], twin: Twin, context: Context
) -> None:
    alone, taught = (
        PruneL1(0.8, steps=2, epochs=4, lr=0.1, teacher=teacher).apply(twin, context)
        for teacher in (None, "baseline")
    )
    assert alone.digest() != taught.digest()
    with pytest.raises(NetzipError, match=r"^prune_l1: teacher: baseline, but"):
        PruneL1(steps=2, teacher="baseline").apply(twin, replace(context, teacher=None))


def test_epochs_are_logged_and_shown_in_one_row(twin: Twin, context: Context) -> None:
    logged: list[tuple[str, int]] = []
    shown: list[float] = []
    watched = replace(
        context,
        log=lambda key, _value, step: logged.append((key, step)),
        progress=lambda _what, done: shown.append(done),
    )
    pruning = PruneL1(0.5, steps=3, epochs=2)
    pruning.apply(twin, watched)
    assert [step for key, step in logged if key == "training/loss"] == [1, 2, 3, 4]
    assert pruning.training_epochs == 4
    assert shown == sorted(shown)
    assert shown[-1] == 1.0


@given(
    first=st.floats(0, 0.99),
    last=st.floats(0, 0.99),
    steps=st.integers(1, 50),
)
def test_the_schedule_rises_from_first_to_last(first: float, last: float, steps: int) -> None:
    shares = [schedule(first, last, step, steps) for step in range(1, steps + 1)]
    assert shares[-1] == last
    assert all(a <= b or math.isclose(a, b) for a, b in itertools.pairwise(shares))
    if first <= last:  # equation 1 of arXiv 1710.01878 with t0 = 0, n = steps, delta t = 1
        t = np.arange(1, steps + 1)
        np.testing.assert_allclose(shares, last + (first - last) * (1 - t / steps) ** 3, atol=1e-12)
