"""A small search on real digits, as Optuna's database and MLflow show it afterwards."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
import zlib

import pandas as pd
import pytest
from optuna.trial import TrialState

from netzip_mlflow import folders
from netzip_mlflow.cli import output
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.report import search_plots
from netzip_mlflow.search import records, timing_lock
from netzip_mlflow.stages.search import command as stage
from netzip_mlflow.tracking import Run

FIGURES, NOTE = search_plots.figures, Run.note  # as they are where nothing replaces them


def test_every_trial_is_a_run_with_the_same_figures(searched, client, monkeypatch):
    follow, left = stage.notes.follow, []

    def noted(work, trials, ended):
        left.extend(work.folder.rglob("trial-*/*"))
        follow(work, trials, ended)

    monkeypatch.setattr(stage.notes, "follow", noted)
    found = searched()
    assert left == [], "a judged trial's file goes with it: 200 take what 200 networks take"
    study, runs = searched.study(found), searched.runs(found)
    assert len(study.trials) == 8
    assert client.get_run(found.outcome.run_id).data.tags["netzip.kind"] == "search"
    first = study.trials[0]
    assert first.user_attrs["netzip.name"] == "int8", "the recipe's own candidate is tried first"
    for trial in study.trials:
        run = client.get_run(trial.user_attrs[records.RUN])
        assert run.data.tags["netzip.kind"] == "trial"
        assert run.data.tags["netzip.trial"] == str(trial.number)
        assert run.info.status == "FINISHED"
        if trial.state == TrialState.PRUNED:
            assert "validation/score/feasible" not in run.data.metrics, "nobody has judged it"
            continue
        feasible = run.data.metrics["validation/score/feasible"]
        assert feasible == float(all(c <= 0 for c in trial.constraints.values()))
        if records.REASON not in trial.user_attrs:
            assert run.data.metrics["validation/score/ocs"] == trial.value
            assert "accuracy/top1" not in run.data.metrics, "test figures choose nothing"
    kinds = [run.data.tags["netzip.kind"] for run in runs.values()]
    assert kinds.count("trial") == 8

    best = records.ranked(records.ended(study))[0]
    assert best.number == study.best_trial.number == found.trial
    names = [c.name for c in found.outcome.candidates]
    assert names == [
        "baseline",
        "int8",
        "outside",
        *(f"trial-{t.number}" for t in records.ranked(records.ended(study))[:2]),
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
    assert [*table["run_id"]] == [t.user_attrs[records.RUN] for t in study.trials]


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
    study = searched.study(found)
    outcomes = [records.outcome(t) for t in study.trials]
    for outcome in ("feasible", "infeasible", "same", "skipped", "stopped", "failed"):
        assert metrics[f"search/{outcome}"] == outcomes.count(outcome)
    assert metrics["search/ended"] == 3
    took = sum((t.datetime_complete - t.datetime_start).total_seconds() for t in study.trials)
    assert metrics["search/seconds"] == pytest.approx(took, abs=0.01)
    assert metrics["search/best_ocs"] == pytest.approx(records.best_ocs(records.ended(study)))

    tags = client.get_experiment(parent.info.experiment_id).tags
    assert "viewStateShareKey=netzip-search" in tags["mlflow.note.content"]
    state = json.loads(tags["mlflow.sharedViewState.netzip-search"])["state"]
    state = json.loads(zlib.decompress(base64.b64decode(state.removeprefix("deflate;"))))
    shown = client.search_runs([parent.info.experiment_id], state["searchFilter"])
    assert {r.info.run_id for r in shown} == {t.user_attrs[records.RUN] for t in study.trials}


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


def test_a_registry_that_refuses_fails_no_search(searched, client, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import RestException

    def refuse(*_given, **_named):
        raise RestException({"error_code": "PERMISSION_DENIED", "message": "ask Ada for a role"})

    monkeypatch.setattr(MlflowClient, "create_model_version", refuse)
    found = searched("search.trials=1", "score.max_drop_points=100", short=True)
    winner = found.winner
    assert winner.registered == ""
    assert "ask Ada for a role" in winner.refusal
    parent = client.get_run(found.outcome.run_id)
    assert parent.info.status == "FINISHED"
    note = parent.data.tags["mlflow.note.content"]
    assert f"**Winner: {winner.name}**" in note
    assert "ask Ada for a role" in note
    assert "Registered as" not in note
    end = output.search_text(found, "sqlite:////m.db").splitlines()[-1]
    assert end.startswith("not registered (PERMISSION_DENIED: ask Ada for a role)")


def test_the_trials_of_a_job_stand_still_while_another_process_times(
    searched, tmp_path, monkeypatch
):
    """A job's temporary files lie in its own folder; the locks of all lie in one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(timing_lock, "PATIENCE_S", 0.05)
    quiet = []

    def lead(_work, trials, _helpers):
        with trials.timing_lock.working(), elsewhere.alone() as alone:
            quiet.append(alone)
        with elsewhere.alone() as alone:
            quiet.append(alone)
        raise NetzipError("enough")

    monkeypatch.setattr(stage, "_lead", lead)
    with contextlib.closing(timing_lock.TimingLock()) as elsewhere:
        with pytest.raises(NetzipError, match="enough"):
            searched("search.trials=1", "train.epochs=1", short=True)
        folders.sweep()
        assert [*tmp_path.glob("*netzip*/gate")], "no sweep removes them"
    assert quiet == [False, True]
