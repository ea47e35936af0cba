from __future__ import annotations

import pytest

from netzip_mlflow.report.trials import ordered, read


def test_counts(trials):
    assert trials.counts == {
        "feasible": 3, "infeasible": 1, "same": 1, "skipped": 1, "stopped": 1, "failed": 1,
    }  # fmt: skip
    assert (trials.ended, trials.planned, trials.lost) == (8, 12, 1)
    assert [t.number for t in trials.judged] == [0, 1, 2, 7]


def test_the_clock_stands_still_between_a_search_and_its_resumption(trials):
    """100 s without a pause; then from 3,700 on two at a time: 100 + 10, 100 + 30, + 1."""
    assert trials.seconds() == {
        0: 10, 1: 40, 2: 90, 3: 92, 4: 100, 6: 110, 7: 130, 8: 131,
    }  # fmt: skip
    assert trials.at_work == 131


def test_what_is_left_takes_as_long_as_what_was(trials):
    assert trials.left == pytest.approx(131 / 8 * 4)
    assert read([], [], {}, 3).left is None


def test_the_best_is_feasible(trials, hopeless):
    assert trials.best.number == trials.first.number == 1
    assert hopeless.best is None
    assert hopeless.first.number == 0
    assert read([], [], {}, 3).first is None


def test_a_row_is_read_by_its_columns(trials):
    two = trials.of(2)
    assert two.ratios == {"P": 1 - 2.5 / 80, "S": 8.0, "C": 14.5}
    assert (two.drop, two.low, two.high) == (2.5, 2.1, 2.9)
    assert two.violations == {"max_drop_points": 1.5}
    assert two.parameters == {
        "place 1": "prune_channels",
        "prune_channels.ratio": 0.5,
        "place 2 (none, finetune, qat)": "qat",
        "qat.lr": 0.01,
        "ptq.bits": 4,
    }
    assert trials.of(3).ocs is None


def test_places_first_then_each_technique_with_its_parameters():
    names = ["qat.lr", "place 2", "ptq.bits", "place 1 (a.b, c)", "qat.epochs"]
    assert ordered(names) == ["place 1 (a.b, c)", "place 2", "qat.lr", "qat.epochs", "ptq.bits"]
