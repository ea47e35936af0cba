"""`netzip resend` on a sqlite store: what a job left, which store it goes to, how it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netzip_mlflow.errors import InputError, TrackingLost
from netzip_mlflow.runs.job import job, open_tracker
from netzip_mlflow.stages.resend import resend
from netzip_mlflow.tracking import patience


@pytest.fixture
def kept(workplace, monkeypatch, tmp_path) -> Path:
    """The folder of a job whose store could not be written any more after its parent was made."""
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
