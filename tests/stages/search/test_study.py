"""A study goes on, is refused, or ends before its time."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.runs import baseline
from netzip_mlflow.search import records
from netzip_mlflow.search import study as studies
from netzip_mlflow.search.leader import leader_or_claim
from netzip_mlflow.stages.search import command as stages_search
from netzip_mlflow.stages.search import objective as stages_trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@pytest.mark.slow
def test_the_same_command_goes_on_with_a_study(searched, client):
    searched("search.trials=2", study="mine", short=True)
    found = searched("search.trials=4", study="mine", short=True)
    assert [t.user_attrs["netzip.slot"] for t in searched.study(found).trials] == [0, 1, 2, 3]
    again = searched("search.trials=4", study="mine", short=True)
    assert len(searched.study(again).trials) == 4


def test_a_study_of_another_recipe_is_refused_before_any_run(searched):
    searched("search.trials=1", study="mine")
    with pytest.raises(InputError, match="another recipe"):
        searched("search.trials=1", "seed=1", study="mine")


class Place:
    """One machine's copy of the same data and weights, and of a network of the user's own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.data, self.weights = folder, folder / "d.npz", folder / "w.safetensors"
        self.code = folder / f"{MODULE}.py"
        self.code.write_text(NETWORK)
        self.write_data()
        self.write_weights(0)

    def write_data(self, **changes: np.ndarray) -> None:
        digits = load_digits()
        images = (digits.images * 15).astype(np.uint8)
        np.savez(self.data, **({"x_train": images, "y_train": digits.target} | changes))

    def write_weights(self, seed: int) -> None:
        torch.manual_seed(seed)
        namespace: dict[str, Any] = {}
        exec(NETWORK, namespace)  # noqa: S102 (ours)
        save_file(namespace["network"](10).state_dict(), self.weights)

    def changes(self) -> tuple[str, ...]:
        """The recipe's paths; what stands in sys.path is this place's."""
        sys.modules.pop(MODULE, None)
        sys.path[:] = [str(self.folder), *(p for p in sys.path if "place-" not in p)]
        importlib.invalidate_caches()
        return (
            f"data={{name: npz, path: '{self.data}', validation: 0.2, test: 0.2, calibration: 64}}",
            f"model={{factory: '{MODULE}:network', weights: '{self.weights}'}}",
            "train=null",
            "search.space=[{prune_l1: {ratio: [0.1, 0.2, 0.3]}}, {half: {}}]",
        )


MODULE = "network_of_two_places"
NETWORK = """
from torch import nn


def network(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))
"""


@pytest.fixture
def places(tmp_path, monkeypatch) -> tuple[Place, Place]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Place(tmp_path / "place-a"), Place(tmp_path / "place-b")


@pytest.mark.slow
def test_two_machines_with_all_files_elsewhere_share_a_study(searched, client, places):
    here, there = places
    loose = ("search.trials=2", "score.max_drop_points=100")
    searched(*here.changes(), "search.trials=1", *loose[1:], study="mine", short=True)
    found = searched(*there.changes(), *loose, study="mine", short=True)
    states = [t.state.name for t in searched.study(found).trials]
    assert states == ["COMPLETE", "COMPLETE"]

    runs = [run.info.run_id for run in all_runs(client)]

    def refusal() -> str:
        with pytest.raises(InputError) as refused:
            searched(*there.changes(), *loose, study="mine", short=True)
        return str(refused.value)

    there.write_data(y_train=np.roll(load_digits().target, 1))
    assert "was begun with other data: its" in refusal()
    there.write_data()
    there.write_weights(1)
    assert "was begun with other weights: its" in refusal()
    there.write_weights(0)
    there.code.write_text(NETWORK.replace("ReLU", "Tanh"))
    assert f"was begun with other code of {MODULE}:network: its" in refusal()
    assert [run.info.run_id for run in all_runs(client)] == runs, "before any run exists"


@pytest.mark.slow
def test_a_study_is_started_over(searched, client, places):
    here, _ = places
    loose = ("search.trials=1", "score.max_drop_points=100")
    searched(*here.changes(), *loose, study="mine", short=True)
    here.write_weights(1)
    found = searched(*here.changes(), *loose, study="mine", short=True, restart=True)
    (trial,) = searched.study(found).trials
    assert client.get_run(trial.user_attrs[records.RUN]).data.tags["netzip.parent"] == (
        found.outcome.run_id
    )
    trials = [run for run in all_runs(client) if run.data.tags["netzip.kind"] == "trial"]
    assert len(trials) == 2, "what was measured stays in MLflow"


@pytest.mark.parametrize(
    ("missing", "request_", "says"),
    [("weights", {}, "safetensors"), ("ray", {"engine": "ray"}, "ray is not installed")],
)
def test_no_study_is_started_over_before_its_input_is_checked(
    searched, places, monkeypatch, tmp_path, missing, request_, says
):
    here, _ = places
    url = f"sqlite:///{tmp_path / 'netzip-search.db'}"
    studies.plan(studies.create(studies.open_storage(url), "mine"), 3)
    if missing == "weights":
        save_file({"other": torch.zeros(3)}, here.weights)
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=says):
        searched(*here.changes(), study="mine", restart=True, **request_)
    assert len(optuna.load_study(study_name="mine", storage=url).trials) == 3


def test_a_study_that_is_deleted_while_a_search_joins_it_is_begun_again(
    searched, places, monkeypatch
):
    here, _ = places
    claimed = []

    def delete_first(study):
        claimed.append(study)
        if len(claimed) == 1:
            optuna.delete_study(study_name=study.study_name, storage=study._storage)
        return leader_or_claim(study)

    monkeypatch.setattr(stages_search, "leader_or_claim", delete_first)
    loose = ("search.trials=1", "score.max_drop_points=100")
    found = searched(*here.changes(), *loose, study="mine", short=True)
    assert len(claimed) == 2
    assert found.trials == 1


def test_trials_against_another_baseline_are_not_ranked_together(searched, client, monkeypatch):
    """It was trained again, on a machine that computes otherwise, say."""
    searched("search.trials=1", study="mine", short=True)
    real = baseline.ready

    def other(*given: Any) -> Any:
        made = real(*given)
        with torch.no_grad():
            next(iter(made.twin.model.parameters())).mul_(1.01)
        return made

    monkeypatch.setattr(baseline, "ready", other)
    with pytest.raises(NetzipError, match="was begun with another baseline"):
        searched("search.trials=2", study="mine", short=True)
    parents = [run for run in all_runs(client) if run.data.tags["netzip.kind"] == "search"]
    assert sorted(run.info.status for run in parents) == ["FAILED", "FINISHED"]
    trials = [run for run in all_runs(client) if run.data.tags["netzip.kind"] == "trial"]
    assert len({run.data.tags["netzip.baseline"] for run in trials}) == 1
    assert {run.data.tags["netzip.parent"] for run in trials} != {
        run.info.run_id for run in parents if run.info.status == "FAILED"
    }


def all_runs(client: MlflowClient) -> list[Run]:
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    return list(client.search_runs([experiment.experiment_id]))


def test_a_trial_that_cannot_be_made_fails_and_the_others_go_on(searched, client):
    space = "search.space=[{factorise: {layers: 'no.such.layer', ratio: [0.3, 0.5]}}]"
    with pytest.raises(NetzipError, match="no trial was judged"):
        searched(space, "search.trials=2", "candidates={}")


def test_a_trial_that_takes_too_long_fails(searched, client):
    with pytest.raises(NetzipError, match="no trial was judged"):
        searched("search.trials=1", "search.trial_timeout=0.0001s", short=True)
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


@pytest.mark.slow
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
    states = [t.state.name for t in searched.study(found).trials]
    assert states == ["COMPLETE", "FAIL", "WAITING", "WAITING"]
    left = searched.study(found).trials[1]
    assert client.get_run(left.user_attrs[records.RUN]).info.status == "KILLED"
    assert found.trial == 0, "the best so far"

    clock.number = -1
    again = searched.study(searched(*changes, study="mine"))
    assert sorted(t.user_attrs[records.SLOT] for t in records.ended(again)) == [0, 1, 2]
    taken = next(t for t in records.ended(again) if t.user_attrs[records.SLOT] == 1)
    assert taken.params == left.params


def test_a_space_that_is_wrong_is_said_before_any_run(searched):
    with pytest.raises(InputError, match=r"search\.space"):
        searched("search.space=[{ptq: {bits: 8}}]")
