"""Which parameters matter, on studies whose answer is known."""

from __future__ import annotations

import json

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from netzip_mlflow.search import records
from netzip_mlflow.search.importances import importances

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": CategoricalDistribution(["a", "b"])}


def study_of(figures, directions=("maximize",)):
    """Trials with x from 0 to 1; `figures(x, number)`: OCS and violation."""
    study = optuna.create_study(directions=list(directions))
    for number in range(20):
        x = number / 19
        ocs, violation = figures(x, number)
        attributes = {
            records.OCS: ocs,
            records.FEASIBLE: violation <= 0,
            records.VIOLATIONS: json.dumps({"max_drop_points": violation}),
        }
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                values=[ocs] * len(directions),
                params={"x": x, "y": "ab"[number % 2]},
                distributions=SPACE,
                user_attrs=attributes,
            )
        )
    return study


def test_what_the_score_follows_matters_most():
    found = importances(study_of(lambda x, _: (x, 0.0)))
    assert next(iter(found)) == "x"
    assert found["x"] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)


def test_an_infeasible_trial_is_not_among_the_best_whatever_its_score():
    """OCS follows x, but only the trials of y = b (odd ones) are feasible: y decides."""
    found = importances(
        study_of(lambda x, n: (9 + x if n % 2 == 0 else 0.01 * (n % 3), 1.0 - n % 2))
    )
    assert found["y"] > found["x"]


def test_a_feasible_trial_is_better_than_a_small_violation_even_with_a_bad_score():
    """The feasible ones (y = b) are in no order by x, the others are: y decides, x says little."""
    found = importances(study_of(lambda x, n: (-9 - 7 * n % 20, 0.0) if n % 2 else (0.0, 1.0 + x)))
    assert found["y"] > found["x"]


def test_violations_order_what_is_not_feasible_and_may_be_infinite():
    found = importances(study_of(lambda x, _: (0.0, float("inf") if x < 0.1 else 2 - x)))
    assert found["x"] > found["y"]


def test_of_a_study_with_several_objectives():
    found = importances(study_of(lambda x, _: (x, 0.0), ("maximize", "maximize")))
    assert found["x"] > found["y"]


def test_nothing_to_tell_from():
    assert importances(study_of(lambda _x, _n: (1.0, 0.0))) == {}
    few = optuna.create_study()
    few.add_trials(study_of(lambda x, _: (x, 0.0)).trials[:9])
    assert importances(few) == {}
    assert importances(optuna.create_study()) == {}
