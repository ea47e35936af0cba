"""What every task has ready, with the tasks of tests/user_code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from netzip_mlflow.data import Changes
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.recipe import DataSpec
from netzip_mlflow.tasks import Evaluation, OutOfReach, open_task

DATA = {"validation": 0.2, "test": 0.2, "calibration": 32}


@pytest.fixture(scope="module")
def scenes() -> Any:
    spec = DataSpec(factory="digit_and_centre:scenes", arguments={"count": 200}, **DATA)
    return open_task("digit_and_centre:DigitAndCentre", spec, 0)


@pytest.fixture(scope="module")
def periods() -> Any:
    spec = DataSpec(factory="waves:signals", arguments={"count": 200}, **DATA)
    return open_task("waves:Periods", spec, 0)


class Session:
    """Answers from arrays, by the names and in the order of a file."""

    def __init__(self, **values: np.ndarray) -> None:
        self.values, self.outputs, self.done = values, tuple(values), 0

    def run(self, samples: np.ndarray) -> tuple[np.ndarray, ...]:
        part = slice(self.done, self.done + len(samples))
        self.done += len(samples)
        return tuple(value[part] for value in self.values.values())


def _answers(task: Any, share: float, seed: int) -> dict[str, np.ndarray]:
    """Right about the digit for a share of validation, and about each centre."""
    targets = task.split("validation").targets
    draw = np.random.default_rng(seed)
    digits = np.where(draw.random(len(targets)) < share, targets[:, 0], 10 - targets[:, 0])
    scores = np.eye(11, dtype=np.float32)[digits.astype(int)][:, :10]
    return {"digit": scores, "centre": targets[:, 1:] + np.float32(0.5)}


def test_a_split_keeps_the_strata_that_the_task_gives(scenes: Any) -> None:
    whole = np.bincount(scenes.split("train").targets[:, 0].astype(int), minlength=10)
    part = np.bincount(scenes.split("validation").targets[:, 0].astype(int), minlength=10)
    assert np.abs(whole / whole.sum() - part / part.sum()).max() < 0.03
    assert scenes.shape == (1, 12, 12)


def test_outputs_are_taken_by_name_whatever_else_a_file_answers(scenes: Any) -> None:
    answers = _answers(scenes, 0.8, 0)
    straight = scenes.evaluate(Session(**answers), "validation", batch=7)
    more = Session(extra=answers["centre"], centre=answers["centre"], digit=answers["digit"])
    turned = scenes.evaluate(more, "validation", batch=7)
    assert straight.metrics == turned.metrics
    right = answers["digit"].argmax(1) == scenes.split("validation").targets[:, 0]
    assert straight.metrics["accuracy/located"] == right.mean() < 1
    assert straight.metrics["accuracy/centre_px"] == pytest.approx(0.5 * 2**0.5)
    unnamed = Session(a=answers["digit"], b=answers["centre"], c=answers["centre"])
    assert scenes.evaluate(unnamed, "validation", batch=7).metrics == straight.metrics


def test_other_outputs_are_an_error(scenes: Any) -> None:
    answers = _answers(scenes, 0.8, 0)
    with pytest.raises(NetzipError, match=r"the model: answers 7 samples with \(7, 10\); allowed"):
        scenes.evaluate(Session(digit=answers["digit"]), "validation", batch=7)


def test_a_network_is_validated_by_its_credit(scenes: Any) -> None:
    targets = torch.from_numpy(scenes.split("validation").targets)

    class Sure(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            digit = torch.nn.functional.one_hot(targets[:, 0].long(), 10).float()
            return {"centre": targets[:, 1:] + 3 * (targets[:, :1] == 4), "digit": digit}

    assert scenes.validate(Sure()) == float(np.mean(targets[:, 0].numpy() != 4))


@pytest.mark.parametrize("at_least", [0.5, 0.79, 0.95])
def test_an_evaluation_ends_when_no_sample_can_help(periods: Any, at_least: float) -> None:
    """Credits are parts of 1: 0.8 for each sample here."""
    targets = periods.split("validation").targets
    session = Session(periods=targets - np.float32(0.2))
    if at_least < 0.8:
        found = periods.evaluate(session, "validation", batch=4, at_least=at_least)
        assert found.metrics["accuracy/nearness"] == pytest.approx(0.8, abs=1e-6)
        return
    with pytest.raises(OutOfReach) as caught:
        periods.evaluate(session, "validation", batch=4, at_least=at_least)
    assert caught.value.seen == session.done == 12, "of 40: after 12, 2.4 are lost"
    assert caught.value.accuracy == pytest.approx(0.8, abs=1e-6)
    assert caught.value.at_best == pytest.approx(1 - 2.4 / 40, abs=1e-6)


def test_a_comparison_of_parts_is_a_paired_bootstrap(periods: Any) -> None:
    targets = periods.split("validation").targets
    draw = np.random.default_rng(1)
    near, far = (targets + draw.normal(0, s, targets.shape).astype("f4") for s in (0.1, 0.3))
    one, other = (Evaluation("validation", (each,), {}) for each in (near, far))
    found = periods.compare(one, other, seed=0).metrics
    before, after = (periods.credit((each,), targets) for each in (near, far))
    expected = 100 * (before - after)
    theirs = bootstrap((expected,), np.mean, method="percentile", rng=0).confidence_interval
    assert found["accuracy/drop_points"] == pytest.approx(expected.mean(), rel=1e-5)
    assert found["accuracy/drop_points_low"] == pytest.approx(theirs.low, abs=0.6)
    assert found["accuracy/drop_points_high"] == pytest.approx(theirs.high, abs=0.6)
    assert "accuracy/mcnemar_p" not in found, "nothing is right or wrong"
    same = periods.compare(one, one, seed=0).metrics
    assert {*same.values()} == {0.0}


def test_a_comparison_of_right_and_wrong_has_mcnemars_p(scenes: Any) -> None:
    targets = scenes.split("validation").targets
    one, other = (_answers(scenes, share, seed=3) for share in (0.9, 0.5))
    evaluations = [
        Evaluation("validation", (each["digit"], each["centre"]), {}) for each in (one, other)
    ]
    found = scenes.compare(*evaluations, seed=0).metrics
    right, still = (each["digit"].argmax(1) == targets[:, 0] for each in (one, other))
    assert found["accuracy/drop_points"] == pytest.approx(100 * (right.mean() - still.mean()))
    assert 0 <= found["accuracy/mcnemar_p"] < 0.05


def test_without_augment_of_its_own_a_task_refuses(periods: Any) -> None:
    with pytest.raises(NetzipError, match="task periods has no augment: flip and crop"):
        periods.augment(torch.zeros(1, 2, 8), np.zeros((1, 1)), Changes(None, None, 0))


def test_targets_move_with_their_pictures(scenes: Any) -> None:
    """The brightest place of a picture stays where its centre is said to be."""
    changes = SimpleNamespace(
        flips=torch.tensor([True, False]),
        moves=torch.tensor([[0, 2], [0, -1]]),
        applied=lambda samples: samples,
    )
    targets = np.array([[3, 5, 2], [4, 5, 2]], np.float32)
    _, moved = scenes.augment(torch.zeros(2, 1, 12, 12), targets, changes)
    assert moved.tolist() == [[3, 5, 9], [4, 7, 1]]
