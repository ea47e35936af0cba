"""What a search keeps to: limits, fronts, bounds, and what it spares itself."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from optuna.trial import TrialState

from netzip_mlflow.search import told


def test_what_was_skipped_could_not_have_won(searched):
    found = searched("search.trials=14", short=True)
    study = searched.study(found)
    skipped = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert skipped, "half of the space cannot beat ternary weights"
    for trial in skipped:
        reason = trial.user_attrs[told.REASON]
        bound, best = (float(part.split()[-1]) for part in reason.split(": ")[1].split(", "))
        assert bound <= best <= study.best_value + 5e-4


def test_an_impossible_limit_names_the_one_that_violates_least(searched, client):
    found = searched(
        "score.max_drop_points=0", "search.limits.max_disk_mib=0.0001", "search.trials=3"
    )
    assert not found.feasible
    assert client.search_registered_models() == [], "what keeps no limit is not registered"
    assert found.trial == told.ranked(told.ended(searched.study(found)))[0].number
    with pytest.raises(ValueError, match="feasible"):
        _ = searched.study(found).best_trial


def test_a_front_of_ratios_is_searched_and_the_best_ocs_of_it_wins(searched, client):
    changes = ("search.sampler=nsga2", "search.objectives=[P, C]", "search.trials=5")
    found = searched(*changes, short=True)
    study = searched.study(found)
    assert len(study.directions) == 2
    judged = [t for t in told.ended(study) if told.RATIOS in t.user_attrs]
    for trial in judged:
        ratios = json.loads(trial.user_attrs[told.RATIOS])
        assert trial.values == [ratios["P"], ratios["C"]]
    feasible = [t for t in judged if t.user_attrs[told.FEASIBLE]]
    best = max(feasible, key=lambda t: t.user_attrs[told.OCS])
    assert best.user_attrs[told.OCS] == told.best_ocs(told.ended(study))
    assert study.trials[found.trial].user_attrs[told.OCS] == best.user_attrs[told.OCS]
    assert not [t for t in study.trials if t.state == TrialState.PRUNED], "no bound is exact here"
    numbers = {t.number for t in told.front(told.ended(study), "PC")}
    assert numbers <= {t.number for t in study.best_trials}, "Optuna's front holds ours"
    table = pd.read_csv(client.download_artifacts(found.outcome.run_id, "trials.csv"))
    assert {*table["trial"][table["front"]]} == numbers


def test_an_evaluation_ends_when_the_limit_is_out_of_reach(searched, client):
    space = "search.space=[{prune_random: {ratio: [0.97, 0.98]}}, {half: {}}]"
    found = searched(space, "search.trials=2", short=True)
    (first, second) = searched.study(found).trials
    for trial in (first, second):
        assert "images of validation" in trial.user_attrs[told.REASON]
        run = client.get_run(trial.user_attrs[told.RUN])
        drop = run.data.metrics["validation/accuracy/drop_points"]
        assert trial.constraints["max_drop_points"] == pytest.approx((drop - 3.0) / 3.0)
    shown = next(c for c in found.outcome.candidates if c.name == f"trial-{found.trial}")
    assert shown.measured.metrics["validation/accuracy/drop_points"] > 3.0, "judged to the end"
