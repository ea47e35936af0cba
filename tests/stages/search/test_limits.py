"""What a search keeps to: limits, fronts, bounds, and what it spares itself."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from optuna.trial import TrialState

from netzip_mlflow import measuring, recipe
from netzip_mlflow.cli import output
from netzip_mlflow.search import records


@pytest.mark.slow
def test_what_was_skipped_could_not_have_won(searched):
    found = searched("search.trials=14", short=True)
    study = searched.study(found)
    skipped = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert skipped, "half of the space cannot beat ternary weights"
    for trial in skipped:
        reason = trial.user_attrs[records.REASON]
        bound, best = (float(part.split()[-1]) for part in reason.split(": ")[1].split(", "))
        assert bound <= best <= study.best_value + 5e-4
        # samplers rank them behind what is feasible, by how far they are from the best
        short = (best - bound) / max(best, 1.0)
        assert trial.constraints["bound"] == pytest.approx(short, abs=2e-3)
        assert sum(trial.constraints.values()) == trial.constraints["bound"]
    assert {t.constraints["bound"] for t in records.ended(study)} == {0.0}


class TestOneWinner:
    """The comparison, the object for machines, the parent, each run and the registry agree."""

    # smaller files count for nothing: int8 beats what is stored in fewer bits
    LOOSE = ("score.max_drop_points=100", "score.weights.C=0", "search.trials=1", "search.keep=1")
    FEWER_BITS = "search.space=[{ptq: {bits: [4, 2]}}]"

    def best(self, searched, client, found) -> str | None:
        """The name that all of them give."""
        shown = output.search_object(found)
        parent = client.get_run(found.outcome.run_id).data
        runs = {n: run.data.metrics for n, run in searched.runs(found).items() if n != "baseline"}
        within = {n for n, m in runs.items() if m.get("validation/score/feasible") == 1}
        assert shown["feasible"] == (shown["best"] is not None) == bool(within)
        assert parent.tags["netzip.best"] == (shown["best"] or "")
        page = client.download_artifacts(found.outcome.run_id, "report.html")
        assert "max_disk_mib" in Path(page).read_text(encoding="utf-8"), "the report names it"
        table = pd.read_csv(client.download_artifacts(found.outcome.run_id, "comparison.csv"))
        listed = table[(table["kind"] != "baseline") & (table["validation/score/feasible"] > 0)]
        if shown["best"] is None:
            assert client.search_registered_models() == []
            assert not listed["name"].tolist()
            return None
        assert listed["name"].tolist()[0] == shown["best"]
        version = client.get_model_version_by_alias("small-search", "best-ocs")
        assert client.get_run(version.run_id).info.run_name == shown["best"] == found.winner.name
        named = client.get_run(version.run_id).data.metrics
        assert parent.metrics["best/score/ocs"] == named["score/ocs"]
        return shown["best"]

    def test_where_only_a_trial_keeps_the_limit(self, searched, client, tmp_path):
        only = ("candidates={int8: [ptq]}", self.FEWER_BITS, "search.limits.max_disk_mib=0.045")
        found = searched(*self.LOOSE, *only)
        assert self.best(searched, client, found) == "trial-0"
        assert found.trial == 0
        int8 = searched.runs(found)["int8"].data
        assert int8.metrics["validation/score/feasible"] == int8.metrics["score/feasible"] == 0
        size = int8.metrics["size/disk_bytes"] / 2**20
        excess = (size - 0.045) / 0.045
        assert int8.metrics["validation/score/violation"] == pytest.approx(excess)
        assert int8.tags["netzip.verdict"] == "poor"
        assert "outside the limit of 0.045" in int8.tags["netzip.reason"]
        note = client.get_run(found.outcome.run_id).data.tags["mlflow.note.content"]
        assert "max_disk_mib 0.045" in note
        page = Path(client.download_artifacts(found.outcome.run_id, "report.html"))
        shown = re.search(r"Recipe, resolved</h2><pre><code>(.*?)</code>", page.read_text(), re.S)
        (tmp_path / "shown.yaml").write_text(html.unescape(shown[1]))
        assert set(recipe.load(tmp_path / "shown.yaml").candidates) == {"int8"}

    def test_where_the_recipe_s_own_candidate_keeps_it_best(self, searched, client):
        space = "search.space=[{prune_random: {ratio: [0.1, 0.2]}}, {half: {}}]"
        only = ("candidates={int8: [ptq]}", space, "search.limits.max_disk_mib=1")
        found = searched(*self.LOOSE, *only)
        assert self.best(searched, client, found) == "int8"
        assert found.trial is None, "no trial has made it"

    def test_where_nothing_keeps_it(self, searched, client):
        impossible = "search.limits.max_disk_mib=0.0001"
        found = searched("score.max_drop_points=0", impossible, "search.trials=3", "search.keep=3")
        assert self.best(searched, client, found) is None
        violations = {
            c.name: client.get_run(c.run.id).data.metrics["validation/score/violation"]
            for c in found.outcome.candidates[1:]
        }
        choice = found.outcome.choice
        assert choice.least_violating == min(violations, key=violations.__getitem__)
        assert "max_disk_mib by" in choice.reason
        note = client.get_run(found.outcome.run_id).data.tags["mlflow.note.content"]
        assert note.startswith("**Nothing is within the constraint**")
        with pytest.raises(ValueError, match="feasible"):
            _ = searched.study(found).best_trial


class TestBeforeItsTraining:
    """Once something is feasible, what breaks a limit by its untrained network is not trained."""

    SPACE = (
        "search.space=[{qat: {bits: [8, ternary], epochs: 1, lr: 0.005}},"
        " {ptq: {calibration: [minmax, entropy]}}]"
    )
    CANDIDATES = (  # too large and judged, feasible, too large again
        "candidates={wide: [{qat: {bits: 8, epochs: 1, lr: 0.005}}, {ptq: {calibration: minmax}}],"
        " low: [{qat: {bits: ternary, epochs: 1, lr: 0.005}}, {ptq: {calibration: minmax}}],"
        " again: [{qat: {bits: 8, epochs: 1, lr: 0.005}}, {ptq: {calibration: entropy}}]}"
    )

    def runs(self, searched, client, *changes: str):
        """The trials of these three candidates, and their runs."""
        fixed = (self.CANDIDATES, self.SPACE, "search.trials=3", "search.keep=1")
        loose = "score.max_drop_points=100"
        front = ("search.sampler=nsga2", "search.objectives=[P, C]")  # no bound skips any
        found = searched(*fixed, loose, *front, *changes)
        trials = searched.study(found).trials
        return trials, [client.get_run(trial.user_attrs[records.RUN]) for trial in trials]

    @pytest.mark.slow
    def test_a_file_that_will_be_too_large(self, searched, client):
        limit = 0.03
        trials, runs = self.runs(searched, client, f"search.limits.max_disk_mib={limit}")
        assert [trial.user_attrs[records.FEASIBLE] for trial in trials] == [False, True, False]
        assert [records.outcome(trial) for trial in trials] == ["infeasible", "feasible", "stopped"]
        trained, _, stopped = (run.data.metrics for run in runs)
        assert "training/loss" in trained
        assert "training/loss" not in stopped
        assert stopped["size/disk_bytes"] == pytest.approx(trained["size/disk_bytes"], rel=2e-3)
        excess = (stopped["size/disk_bytes"] / 2**20 - limit) / limit
        assert trials[2].constraints["max_disk_mib"] == pytest.approx(excess)
        assert trials[2].constraints["max_drop_points"] == 0.0, "nobody knows it: adds nothing"
        violations = json.loads(trials[2].user_attrs[records.VIOLATIONS])
        assert violations["max_drop_points"] == float("inf")
        wrong = f"max_disk_mib {limit:g}, but its file has {stopped['size/disk_bytes']:,.0f} bytes"
        assert trials[2].user_attrs[records.REASON] == f"stopped before its training: {wrong}"

    @pytest.mark.slow
    def test_a_network_that_will_be_too_slow(self, searched, client, monkeypatch):
        real = measuring.time_together

        def time_together(measured, conditions):
            """As fast as they are small, and known to 10 %."""
            real(measured, conditions)
            for each in measured:
                each.flags.clear()
                ratio = measured[0].metrics["size/disk_bytes"] / each.metrics["size/disk_bytes"]
                for key, value in (("ratio/its", ratio), ("speed/latency_ms", 1 / ratio)):
                    around = {"": value, "_low": 0.9 * value, "_high": 1.1 * value}
                    each.metrics |= {key + end: figure for end, figure in around.items()}

        monkeypatch.setattr(measuring, "time_together", time_together)
        trials, runs = self.runs(searched, client, "search.limits.min_speedup=6")
        assert [records.outcome(trial) for trial in trials] == ["infeasible", "feasible", "stopped"]
        ratio = runs[2].data.metrics["ratio/its"]
        assert ratio == pytest.approx(runs[0].data.metrics["ratio/its"], rel=2e-3)
        assert trials[2].constraints["min_speedup"] == pytest.approx((6 - ratio) / 6)
        assert "training/loss" not in runs[2].data.metrics
        assert (
            f"but it has {ratio:.3f} [{0.9 * ratio:.3f}, " in trials[2].user_attrs[records.REASON]
        )
        parent = client.get_run(runs[2].data.tags["mlflow.parentRunId"])
        (origin,) = (
            run
            for run in client.search_runs(parent.info.experiment_id.split())
            if run.data.tags.get("netzip.kind") == "baseline"
        )
        assert origin.data.metrics["speed/latency_ms"] > 0, "logged at the end, timed before too"


@pytest.mark.slow
def test_a_front_of_ratios_is_searched_and_the_best_ocs_of_it_wins(searched, client):
    changes = ("search.sampler=nsga2", "search.objectives=[P, C]", "search.trials=5")
    found = searched(*changes, short=True)
    study = searched.study(found)
    assert len(study.directions) == 2
    judged = [t for t in records.ended(study) if records.RATIOS in t.user_attrs]
    for trial in judged:
        ratios = json.loads(trial.user_attrs[records.RATIOS])
        assert trial.values == [ratios["P"], ratios["C"]]
    feasible = [t for t in judged if t.user_attrs[records.FEASIBLE]]
    best = max(feasible, key=lambda t: t.user_attrs[records.OCS])
    assert best.user_attrs[records.OCS] == records.best_ocs(records.ended(study))
    assert study.trials[found.trial].user_attrs[records.OCS] == best.user_attrs[records.OCS]
    assert not [t for t in study.trials if t.state == TrialState.PRUNED], "no bound is exact here"
    numbers = {t.number for t in records.front(records.ended(study), "PC")}
    assert numbers <= {t.number for t in study.best_trials}, "Optuna's front holds ours"
    table = pd.read_csv(client.download_artifacts(found.outcome.run_id, "trials.csv"))
    assert {*table["trial"][table["front"]]} == numbers


def test_an_evaluation_ends_when_the_limit_is_out_of_reach(searched, client):
    space = "search.space=[{prune_random: {ratio: [0.97, 0.98]}}, {half: {}}]"
    found = searched(space, "search.trials=2", short=True)
    (first, second) = searched.study(found).trials
    for trial in (first, second):
        assert "images of validation" in trial.user_attrs[records.REASON]
        run = client.get_run(trial.user_attrs[records.RUN])
        drop = run.data.metrics["validation/accuracy/drop_points"]
        assert trial.constraints["max_drop_points"] == pytest.approx((drop - 3.0) / 3.0)
    shown = next(c for c in found.outcome.candidates if c.name == f"trial-{found.trial}")
    assert shown.measured.metrics["validation/accuracy/drop_points"] > 3.0, "judged to the end"
