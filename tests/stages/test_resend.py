"""`netzip resend` on a sqlite store: what a job left, which store it goes to, how it is said."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from unittest import mock

import pytest
from mlflow import MlflowClient

from netzip_mlflow.errors import InputError, TrackingLost
from netzip_mlflow.runs.job import Options, job, open_tracker
from netzip_mlflow.stages.resend import resend
from netzip_mlflow.tracking import Tracker, patience
from netzip_mlflow.tracking.unsent import Unsent, rescue, save
from netzip_mlflow.tracking.writes import Write


@pytest.fixture
def kept(workplace, monkeypatch, tmp_path) -> Path:
    """The folder of a job whose store could not be written any more after its parent was made."""
    return left_behind(workplace, monkeypatch, tmp_path)


def left_behind(workplace: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    tracker = open_tracker(workplace)

    def away(*_given: object, **_named: object) -> None:
        raise ConnectionError("refused")

    def work() -> None:
        with monkeypatch.context() as patch, job("compress", "d", workplace, tracker) as at_work:
            for call in ("create_run", "log_batch", "log_artifact", "log_text", "set_terminated"):
                patch.setattr(tracker.sender.client, call, away)
            child = at_work.run.child("candidate", "small")
            (at_work.folder / "layers.csv").write_text("layer\n")
            child.artifact(at_work.folder / "layers.csv")
            child.log({"accuracy/top1": 0.5})

    with pytest.raises(TrackingLost):
        work()
    (place,) = tmp_path.glob("netzip-unsent-*")
    return place


def test_everything_arrives_and_all_runs_end(kept, client):
    (parent,) = client.search_runs(["1"])
    assert parent.info.status == "RUNNING"
    resent = resend(kept)
    assert "can be removed" in resent.as_text()
    runs = {run.info.run_name: run for run in client.search_runs(["1"])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["small"].data.metrics == {"accuracy/top1": 0.5}
    assert runs["small"].data.tags["mlflow.parentRunId"] == runs["d"].info.run_id
    assert [f.path for f in client.list_artifacts(runs["small"].info.run_id)] == ["layers.csv"]
    assert (resend(kept).sent, resend(kept).left) == (0, ())


def test_a_file_that_is_gone_is_left_and_said(kept, client):
    (kept / "layers.csv").unlink()
    resent = resend(kept)
    ((what, _),) = resent.left
    assert what == "layers.csv of small"
    assert what in resent.as_text()
    assert {run.info.status for run in client.search_runs(["1"])} == {"FINISHED"}


def test_a_store_whose_password_was_not_saved(kept):
    file = kept / "unsent.json"
    content = json.loads(file.read_text()) | {"store": "postgresql://me:***@127.0.0.1:1/d"}
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="--tracking-uri"):
        resend(kept)


def test_from_another_folder_it_goes_to_the_same_store(workplace, tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").rename(tmp_path / "relative.db")
    relative = dataclasses.replace(workplace, tracking_uri="sqlite:///relative.db")
    kept = left_behind(relative, monkeypatch, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    resent = resend(kept)
    assert not resent.left
    assert list(elsewhere.iterdir()) == []
    client = MlflowClient(f"sqlite:///{tmp_path / 'relative.db'}")
    assert {run.info.status for run in client.search_runs(["1"])} == {"FINISHED"}


def test_an_experiment_has_another_id_in_another_store(tmp_path, workplace, client):
    """What described experiment 1 here must not be written on experiment 1 there."""
    there = f"sqlite:///{tmp_path / 'there.db'}"
    other = Tracker(there, "somebody's").experiment_id
    tracker = open_tracker(workplace)
    with tracker.parent("compare", "c"):
        assert tracker.experiment_id == other
        sent: list[Write] = []
        with mock.patch.object(tracker.outbox, "send", sent.append):
            tracker.set_experiment_tags(tracker.experiment_id, {"view": "1"})
    name = client.get_experiment(tracker.experiment_id).name
    folder = tmp_path / "kept"
    folder.mkdir()
    experiment = {"name": name, "id": tracker.experiment_id}
    save(folder, Unsent(there, experiment, {}, {}, tuple(sent)))
    assert not resend(folder).left
    store = MlflowClient(there)
    assert "view" not in store.get_experiment(other).tags
    described = store.get_experiment_by_name(name)
    assert described is not None
    assert described.tags["view"] == "1"


def test_what_a_later_command_has_described_stays(workplace, client):
    tracker = open_tracker(workplace)
    with tracker.parent("compare", "c"):
        home = tracker.experiment_id
        tracker.set_experiment_tags(home, {"view": "new"})
        earlier = Write("experiment_tags", "", "", 1, {"experiment": home, "tags": {"view": "old"}})
        tracker.sender(earlier, True)
        assert client.get_experiment(home).tags["view"] == "new"
        later = dataclasses.replace(earlier, at=int(time.time() * 1000) + 60_000)
        tracker.sender(later, True)
        assert client.get_experiment(home).tags["view"] == "old"


def test_a_folder_that_cannot_be_moved_leaves_no_half_of_it(tmp_path, monkeypatch):
    """The current folder is on another file system, which is full."""
    folder = tmp_path / "tmp" / "netzip-abc"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"measured")

    def other(*_given: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    def full(_source: object, target: str, **_named: object) -> None:
        Path(target).mkdir()
        (Path(target) / "model.onnx").write_bytes(b"mea")
        raise shutil.Error([("model.onnx", target, "No space left on device")])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "rename", other)
    monkeypatch.setattr(shutil, "copytree", full)
    assert rescue(folder, Unsent("s", {}, {}, {}, ()), only_files=False) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]
    assert (folder / "model.onnx").read_bytes() == b"measured"
    assert (folder / "unsent.json").is_file()
