"""How trials stand to each other, by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from netzip_mlflow.search import records


def trial(number: int, ocs: float, violation: float = 0.0, **more: Any) -> FrozenTrial:
    """One as `stages.trial` leaves it; `ratios` P, S, C."""
    ratios = more.pop("ratios", None)
    attributes = {
        records.SLOT: number,
        records.CHAIN: "c",
        records.RUN: f"run-{number}",
        records.ENTRIES: more.pop("entries", f'[{{"t": {number}}}]'),
        records.OCS: ocs,
        records.FEASIBLE: violation <= 0,
        records.VIOLATIONS: json.dumps({"max_drop_points": violation, "max_disk_mib": -3.0}),
        **({records.RATIOS: json.dumps(dict(zip("PSC", ratios, strict=True)))} if ratios else {}),
        **more,
    }
    made = create_trial(state=TrialState.COMPLETE, value=ocs, user_attrs=attributes)
    made.number = number
    return made


def numbers(trials: list[FrozenTrial]) -> list[int]:
    return [t.number for t in trials]


def test_feasible_ones_by_ocs_then_the_others_by_what_they_violate():
    given = [trial(0, 9.0, 0.4), trial(1, 3.0), trial(2, 99.0, 2.0), trial(3, 5.0)]
    assert numbers(records.ranked(given)) == [3, 1, 0, 2]
    assert records.best_ocs(given) == 5.0
    assert records.best_ocs([given[0], given[2]]) is None


def test_what_is_kept_makes_up_for_nothing():
    assert records.violation({"a": 0.5, "b": -7.0, "c": 0.25}) == 0.75


def test_of_what_nobody_knows_the_fewest():
    unknown = {records.VIOLATIONS: json.dumps({"max_drop_points": 0.1, "max_disk_mib": math.inf})}
    given = [trial(0, 1.0, 0.1, **unknown), trial(1, 1.0, 3.0), trial(2, 1.0, 2.0)]
    assert numbers(records.ranked(given)) == [2, 1, 0]
    assert records.violation({"a": 0.5, "b": math.inf}) == 0.5, "what is known of it"
    assert records.violation({"a": -0.5, "b": math.inf}) == math.inf


def test_of_equal_chains_the_first():
    given = [trial(0, 5.0, entries="[]"), trial(1, 5.0), trial(2, 5.0, entries="[]")]
    assert numbers(records.ranked(given)) == [0, 1]
    assert records.same(given, "[]") is given[0]
    assert records.same(given, "[{}]") is None


def test_what_was_stopped_early_stands_only_where_nothing_else_does():
    stopped = {records.REASON: "stopped after epoch 1"}
    given = [trial(0, 0.0, 0.2, **stopped), trial(1, 4.0, 3.0)]
    assert numbers(records.ranked(given)) == [1]
    assert numbers(records.ranked(given[:1])) == [0]
    assert records.same([trial(0, 1.0, entries="[]", **stopped)], "[]") is None


def test_the_front_holds_what_nothing_feasible_beats():
    given = [
        trial(0, 1.0, ratios=(1.00, 4.0, 4.0)),
        trial(1, 1.0, ratios=(0.99, 4.0, 8.0)),
        trial(2, 1.0, ratios=(0.99, 4.0, 7.0)),  # beaten by 1
        trial(3, 1.0, ratios=(0.98, 6.0, 6.0)),
        trial(4, 1.0, 0.5, ratios=(1.00, 9.0, 9.0)),  # not feasible
        trial(5, 1.0, ratios=(1.00, 4.0, 4.0)),  # as good as 0: neither beats the other
    ]
    assert numbers(records.front(given, "PSC")) == [0, 1, 3, 5]
    assert numbers(records.front(given, "PS")) == [0, 3, 5]


def test_every_planned_trial_is_a_row():
    study = optuna.create_study()
    study.add_trial(trial(0, 2.5, ratios=(0.9, 2.0, 3.0)))
    study.add_trial(trial(0, 0.0, 4.0, **{records.REASON: "stopped"}))
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.0))  # none of ours
    first, second = records.rows(study)
    assert (first["ocs"], first["ratio/S"], first["feasible"], first["reason"]) == (
        2.5,
        2.0,
        True,
        "",
    )
    assert (second["ocs"], second["reason"], second["feasible"]) == ("", "stopped", False)


def test_what_became_of_a_trial():
    def ended(state: TrialState, **told_of_it: Any) -> FrozenTrial:
        value = 1.0 if state == TrialState.COMPLETE else None
        return create_trial(state=state, value=value, user_attrs={records.SLOT: 0, **told_of_it})

    assert records.outcome(trial(0, 1.0)) == "feasible"
    assert records.outcome(trial(0, 1.0, 0.1)) == "infeasible"
    assert records.outcome(trial(0, 1.0, **{records.REASON: f"{records.SAME} 7"})) == "same"
    assert records.outcome(trial(0, 1.0, **{records.REASON: "stopped after epoch 1"})) == "stopped"
    assert records.outcome(ended(TrialState.PRUNED)) == "skipped"
    assert records.outcome(ended(TrialState.FAIL, **{"netzip.error": "rank 0"})) == "failed"
    assert records.outcome(ended(TrialState.FAIL)) == "lost"
    assert records.outcome(ended(TrialState.FAIL, **{"netzip.blameless": True})) == "lost"
    assert records.outcome(ended(TrialState.FAIL, **{"netzip.attempt": 3})) == "failed"
    assert records.outcome(create_trial(state=TrialState.RUNNING)) == "running"


def test_what_was_varied_is_written_as_in_a_recipe():
    study = optuna.create_study()
    first, second = study.ask(), study.ask()
    first.suggest_float("lr", 0.001, 0.1, log=True)
    first.suggest_categorical("bits", [8, None])
    second.suggest_int("epochs", 1, 4)
    assert records.varied(study) == {
        "lr": {"low": 0.001, "high": 0.1, "log": True},
        "bits": [8, None],
        "epochs": {"low": 1, "high": 4, "log": False},
    }


def test_the_drop_is_kept_with_its_interval():
    key = "validation/accuracy/drop_points"
    metrics = {key: 0.5, f"{key}_low": 0.1, f"{key}_high": 0.9, "accuracy/drop_points": 7.0}
    study = optuna.create_study()
    study.add_trial(trial(0, 2.5, **{records.DROP: records.drop(metrics)}))
    (row,) = records.rows(study)
    assert (row["drop"], row["drop_low"], row["drop_high"]) == (0.5, 0.1, 0.9)
    assert row["outcome"] == "feasible"


def test_a_chain_is_read_as_a_recipe_writes_it():
    given = trial(0, 1.0, entries='[{"ptq": {"bits": 4}}]')
    assert records.entries(given) == ({"ptq": {"bits": 4}},)
    assert records.violation(json.loads(given.user_attrs[records.VIOLATIONS])) == pytest.approx(0.0)
