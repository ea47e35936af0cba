"""A small search on real digits, as Optuna's database and MLflow show it afterwards."""

from __future__ import annotations

import base64
import json
import time
import zlib
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from netzip_mlflow import data, models, recipe, search, tasks, techniques
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.report import search_plots
from netzip_mlflow.search import told
from netzip_mlflow.stages import search as stages_search
from netzip_mlflow.stages import trial as stages_trial
from netzip_mlflow.stages.search import Found, Request, search_recipe
from netzip_mlflow.tracking import Run

FIGURES, NOTE = search_plots.figures, Run.note  # as they are where nothing replaces them

RECIPE = """
name: small-search
data: {name: digits, validation: 0.2, test: 0.2, calibration: 64}
model: {name: lenet5}
train: {epochs: 2, optimizer: adamw, lr: 0.004, batch: 64, precision: float32, threads: 1}
candidates:
  int8: [ptq]
  outside: [{prune_random: {ratio: 0.1}}]
measure: {threads: 1, latency: {target: 0.5, max_seconds: 1, min_rounds: 5}, throughput: [8]}
score: {max_drop_points: 3.0}
search:
  trials: 8
  sampler: random
  keep: 2
  space:
    - {optional: true, prune_channels: {ratio: [0.25, 0.5]}}
    - optional: true
      one_of:
        - qat: {bits: [4, ternary], epochs: 1, lr: {low: 0.001, high: 0.1, log: true}}
        - finetune: {epochs: 1, lr: 0.01, teacher: baseline}
    - one_of: [{ptq: {bits: [8, 4]}}, {half: {}}]
"""


SHORT = ("candidates={}", "search.keep=1")  # little is left to compare at the end


def read(folder, *overrides: str):
    file = folder / "recipe.yaml"
    file.write_text(RECIPE)
    checks = [data.check, models.check, tasks.check, techniques.check, search.check]
    return recipe.load(file, overrides, checks)


def study_of(found: Found) -> optuna.Study:
    return optuna.load_study(study_name=found.study, storage=found.storage)


def runs_of(client, found: Found) -> dict[str, Any]:
    below = f"tags.`netzip.parent` = '{found.outcome.run_id}'"
    runs = client.search_runs([found.outcome.experiment_id], below)
    return {run.info.run_name: run for run in runs}


@pytest.fixture
def searched(workplace, no_pictures, no_fresh_process, tmp_path):
    """`searched(*overrides, study=...)` runs the search in this test's store."""

    def run(*overrides: str, study: str | None = None) -> Found:
        return search_recipe(read(tmp_path, *overrides), workplace, Request(study))

    return run


@pytest.fixture
def client(workplace):
    import mlflow

    return mlflow.MlflowClient(workplace.tracking_uri)


def test_every_trial_is_a_run_with_the_same_figures(searched, client):
    found = searched()
    study, runs = study_of(found), runs_of(client, found)
    assert len(study.trials) == 8
    assert client.get_run(found.outcome.run_id).data.tags["netzip.kind"] == "search"
    first = study.trials[0]
    assert first.user_attrs["netzip.name"] == "int8", "the recipe's own candidate is tried first"
    for trial in study.trials:
        run = client.get_run(trial.user_attrs[told.RUN])
        assert run.data.tags["netzip.kind"] == "trial"
        assert run.data.tags["netzip.trial"] == str(trial.number)
        assert run.info.status == "FINISHED"
        if trial.state == TrialState.PRUNED:
            assert "validation/score/feasible" not in run.data.metrics, "nobody has judged it"
            continue
        feasible = run.data.metrics["validation/score/feasible"]
        assert feasible == float(all(c <= 0 for c in trial.constraints.values()))
        if told.REASON not in trial.user_attrs:
            assert run.data.metrics["validation/score/ocs"] == trial.value
            assert "accuracy/top1" not in run.data.metrics, "test figures choose nothing"
    kinds = [run.data.tags["netzip.kind"] for run in runs.values()]
    assert kinds.count("trial") == 8

    best = told.ranked(told.ended(study))[0]
    assert best.number == study.best_trial.number == found.trial
    names = [c.name for c in found.outcome.candidates]
    assert names == [
        "baseline",
        "int8",
        "outside",
        *(f"trial-{t.number}" for t in told.ranked(told.ended(study))[:2]),
    ]
    winner = next(c for c in found.outcome.candidates if c.name == f"trial-{best.number}")
    assert winner.measured.metrics["validation/score/ocs"] == pytest.approx(best.value, abs=1e-9)
    assert "accuracy/drop_points_high" in winner.measured.metrics

    chosen = next(c for c in found.outcome.candidates if c.name == found.outcome.choice.best)
    version = client.get_model_version_by_alias("small-search", "best-ocs")
    assert version.run_id == chosen.run.id
    assert version.tags["netzip.chain"] == chosen.chain
    assert float(version.tags["netzip.ocs"]) == pytest.approx(
        chosen.measured.metrics["score/ocs"], rel=1e-3
    )
    table = pd.read_csv(client.download_artifacts(found.outcome.run_id, "trials.csv"))
    assert [*table["trial"]] == [t.number for t in study.trials]
    assert [*table["run_id"]] == [t.user_attrs[told.RUN] for t in study.trials]


def test_pictures_view_and_summary_are_left_in_mlflow(searched, client, monkeypatch):
    monkeypatch.setattr(search_plots, "figures", FIGURES)
    notes = []

    def noted(run, text):
        notes.append(text)
        return NOTE(run, text)

    monkeypatch.setattr(Run, "note", noted)
    found = searched("search.trials=3", study="mine")
    parent = client.get_run(found.outcome.run_id)
    files = {item.path for item in client.list_artifacts(parent.info.run_id, "plots/search")}
    names = ("history", "history_time", "parallel_coordinates", "slice", "pareto_compression")
    assert {f"plots/search/{n}.{s}" for n in names for s in ("svg", "png")} <= files

    heads = [text.partition(" trials have ended")[0] for text in notes[:4]]
    assert heads == [f"**Searching**: {ended} of 3" for ended in range(4)]
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith(f"**Winner: {found.winner.name}**")
    assert "highest OCS on validation" in note.partition("### Final comparison")[2]
    assert "viewStateShareKey=netzip-search" in note
    storage = f"sqlite:///{found.storage.partition(':///')[2]}"
    assert f"netzip search RECIPE --study mine --storage {storage}" in note

    metrics = parent.data.metrics
    study = study_of(found)
    outcomes = [told.outcome(t) for t in study.trials]
    for outcome in ("feasible", "infeasible", "same", "skipped", "stopped", "failed"):
        assert metrics[f"search/{outcome}"] == outcomes.count(outcome)
    assert metrics["search/ended"] == 3
    took = sum((t.datetime_complete - t.datetime_start).total_seconds() for t in study.trials)
    assert metrics["search/seconds"] == pytest.approx(took, abs=0.01)
    assert metrics["search/best_ocs"] == pytest.approx(told.best_ocs(told.ended(study)))

    tags = client.get_experiment(parent.info.experiment_id).tags
    assert "viewStateShareKey=netzip-search" in tags["mlflow.note.content"]
    state = json.loads(tags["mlflow.sharedViewState.netzip-search"])["state"]
    state = json.loads(zlib.decompress(base64.b64decode(state.removeprefix("deflate;"))))
    shown = client.search_runs([parent.info.experiment_id], state["searchFilter"])
    assert {r.info.run_id for r in shown} == {t.user_attrs[told.RUN] for t in study.trials}


def test_a_candidate_outside_the_space_may_win_and_is_said_to(searched, client):
    """Nothing in the space is as small; the drop of 100 points is no limit."""
    small = "candidates.outside=[{qat: {bits: ternary, epochs: 1}}, {ptq: {}}]"
    space = "search.space=[{prune_random: {ratio: [0.1, 0.2]}}, {half: {}}]"
    found = searched(small, space, "search.trials=1", "score.max_drop_points=100", "search.keep=1")
    assert found.winner.name == "outside"
    assert found.winner.why.endswith("the recipe's own candidate, which lies outside the space")
    version = client.get_model_version_by_alias("small-search", "best-ocs")
    assert found.winner.registered == "models:/small-search@best-ocs"
    assert client.get_run(version.run_id).info.run_name == "outside"


def test_what_was_skipped_could_not_have_won(searched):
    found = searched("search.trials=14", *SHORT)
    study = study_of(found)
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
    assert found.trial == told.ranked(told.ended(study_of(found)))[0].number
    with pytest.raises(ValueError, match="feasible"):
        _ = study_of(found).best_trial


def test_the_same_command_goes_on_with_a_study(searched, client):
    searched("search.trials=2", *SHORT, study="mine")
    found = searched("search.trials=4", *SHORT, study="mine")
    assert [t.user_attrs["netzip.slot"] for t in study_of(found).trials] == [0, 1, 2, 3]
    again = searched("search.trials=4", *SHORT, study="mine")
    assert len(study_of(again).trials) == 4


def test_a_study_of_another_recipe_is_refused_before_any_run(searched):
    searched("search.trials=1", study="mine")
    with pytest.raises(InputError, match="another recipe"):
        searched("search.trials=1", "seed=1", study="mine")


def test_a_trial_that_cannot_be_made_fails_and_the_others_go_on(searched, client):
    space = "search.space=[{factorise: {layers: 'no.such.layer', ratio: [0.3, 0.5]}}]"
    with pytest.raises(NetzipError, match="no trial was judged"):
        searched(space, "search.trials=2", "candidates={}")


def test_a_front_of_ratios_is_searched_and_the_best_ocs_of_it_wins(searched, client):
    changes = ("search.sampler=nsga2", "search.objectives=[P, C]", "search.trials=5", *SHORT)
    found = searched(*changes)
    study = study_of(found)
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
    found = searched(space, "search.trials=2", *SHORT)
    (first, second) = study_of(found).trials
    for trial in (first, second):
        assert "images of validation" in trial.user_attrs[told.REASON]
        run = client.get_run(trial.user_attrs[told.RUN])
        drop = run.data.metrics["validation/accuracy/drop_points"]
        assert trial.constraints["max_drop_points"] == pytest.approx((drop - 3.0) / 3.0)
    shown = next(c for c in found.outcome.candidates if c.name == f"trial-{found.trial}")
    assert shown.measured.metrics["validation/accuracy/drop_points"] > 3.0, "judged to the end"


def test_a_trial_that_takes_too_long_fails(searched, client):
    with pytest.raises(NetzipError, match="no trial was judged"):
        searched("search.trials=1", "search.trial_timeout=0.0001s", *SHORT)
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    runs = client.search_runs([experiment.experiment_id], "tags.`netzip.kind` = 'trial'")
    assert [run.info.status for run in runs] == ["FAILED"]
    assert "search.trial_timeout" in runs[0].data.tags["netzip.reason"]


class _Clock:
    """The module `time`, two hours ahead once a trial of a number has begun."""

    def __init__(self, number: int) -> None:
        self.number, self.ahead = number, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def test_the_trial_in_flight_when_the_time_is_over_waits_again(searched, client, monkeypatch):
    clock = _Clock(1)
    for module in (stages_search, stages_trial):
        monkeypatch.setattr(module, "time", clock)
    tried = stages_trial.Trials._tried

    def begun(trials, trial, *given):
        clock.ahead = 7200.0 if trial.number == clock.number else 0.0
        return tried(trials, trial, *given)

    monkeypatch.setattr(stages_trial.Trials, "_tried", begun)
    changes = ("search.trials=3", "search.timeout=1h", "search.keep=1")
    found = searched(*changes, study="mine")
    states = [t.state.name for t in study_of(found).trials]
    assert states == ["COMPLETE", "FAIL", "WAITING", "WAITING"]
    left = study_of(found).trials[1]
    assert client.get_run(left.user_attrs[told.RUN]).info.status == "KILLED"
    assert found.trial == 0, "the best so far"

    clock.number = -1
    again = study_of(searched(*changes, study="mine"))
    assert sorted(t.user_attrs[told.SLOT] for t in told.ended(again)) == [0, 1, 2]
    taken = next(t for t in told.ended(again) if t.user_attrs[told.SLOT] == 1)
    assert taken.params == left.params


def test_a_space_that_is_wrong_is_said_before_any_run(tmp_path):
    with pytest.raises(InputError, match=r"search\.space"):
        read(tmp_path, "search.space=[{ptq: {bits: 8}}]")
