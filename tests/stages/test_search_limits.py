"""What a search keeps to: limits, fronts, bounds, and what it spares itself."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from optuna.trial import TrialState

from netzip_mlflow.search import told
from netzip_mlflow.stages import measurement


def test_what_was_skipped_could_not_have_won(searched):
    found = searched("search.trials=14", short=True)
    study = searched.study(found)
    skipped = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert skipped, "half of the space cannot beat ternary weights"
    for trial in skipped:
        reason = trial.user_attrs[told.REASON]
        bound, best = (float(part.split()[-1]) for part in reason.split(": ")[1].split(", "))
        assert bound <= best <= study.best_value + 5e-4
        # samplers rank them behind what is feasible, by how far they are from the best
        short = (best - bound) / max(best, 1.0)
        assert trial.constraints["bound"] == pytest.approx(short, abs=2e-3)
        assert sum(trial.constraints.values()) == trial.constraints["bound"]
    assert {t.constraints["bound"] for t in told.ended(study)} == {0.0}


def test_an_impossible_limit_names_the_one_that_violates_least(searched, client):
    found = searched(
        "score.max_drop_points=0", "search.limits.max_disk_mib=0.0001", "search.trials=3"
    )
    assert not found.feasible
    assert client.search_registered_models() == [], "what keeps no limit is not registered"
    assert found.trial == told.ranked(told.ended(searched.study(found)))[0].number
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
        return trials, [client.get_run(trial.user_attrs[told.RUN]) for trial in trials]

    def test_a_file_that_will_be_too_large(self, searched, client):
        limit = 0.03
        trials, runs = self.runs(searched, client, f"search.limits.max_disk_mib={limit}")
        assert [trial.user_attrs[told.FEASIBLE] for trial in trials] == [False, True, False]
        assert [told.outcome(trial) for trial in trials] == ["infeasible", "feasible", "stopped"]
        trained, _, stopped = (run.data.metrics for run in runs)
        assert "training/loss" in trained
        assert "training/loss" not in stopped
        assert stopped["size/disk_bytes"] == pytest.approx(trained["size/disk_bytes"], rel=2e-3)
        excess = (stopped["size/disk_bytes"] / 2**20 - limit) / limit
        assert trials[2].constraints["max_disk_mib"] == pytest.approx(excess)
        assert trials[2].constraints["max_drop_points"] == 0.0, "nobody knows it: adds nothing"
        violations = json.loads(trials[2].user_attrs[told.VIOLATIONS])
        assert violations["max_drop_points"] == float("inf")
        wrong = f"max_disk_mib {limit:g}, but its file has {stopped['size/disk_bytes']:,.0f} bytes"
        assert trials[2].user_attrs[told.REASON] == f"stopped before its training: {wrong}"

    def test_a_network_that_will_be_too_slow(self, searched, client, monkeypatch):
        real = measurement.clock

        def clock(measured, *given):
            """As fast as they are small, and known to 10 %."""
            found = real(measured, *given)
            for each in measured:
                each.flags.clear()
                ratio = measured[0].metrics["size/disk_bytes"] / each.metrics["size/disk_bytes"]
                for key, value in (("ratio/its", ratio), ("speed/latency_ms", 1 / ratio)):
                    around = {"": value, "_low": 0.9 * value, "_high": 1.1 * value}
                    each.metrics |= {key + end: figure for end, figure in around.items()}
            return found

        monkeypatch.setattr(measurement, "clock", clock)
        trials, runs = self.runs(searched, client, "search.limits.min_speedup=6")
        assert [told.outcome(trial) for trial in trials] == ["infeasible", "feasible", "stopped"]
        ratio = runs[2].data.metrics["ratio/its"]
        assert ratio == pytest.approx(runs[0].data.metrics["ratio/its"], rel=2e-3)
        assert trials[2].constraints["min_speedup"] == pytest.approx((6 - ratio) / 6)
        assert "training/loss" not in runs[2].data.metrics
        assert f"but it has {ratio:.3f} [{0.9 * ratio:.3f}, " in trials[2].user_attrs[told.REASON]
        parent = client.get_run(runs[2].data.tags["mlflow.parentRunId"])
        (origin,) = (
            run
            for run in client.search_runs(parent.info.experiment_id.split())
            if run.data.tags.get("netzip.kind") == "baseline"
        )
        assert origin.data.metrics["speed/latency_ms"] > 0, "logged at the end, timed before too"


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
