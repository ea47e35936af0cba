"""A real server behind a proxy that injects faults which its /health does not show; what waits,
what is refused, what is kept, and `resend`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netzip_mlflow.errors import InputError, NetzipError, TrackingLost
from netzip_mlflow.runs import candidates
from netzip_mlflow.runs.candidates import Candidate
from netzip_mlflow.stages.resend import resend
from netzip_mlflow.tracking import Tracker, outbox, patience

WRITES = "^(POST .*/(runs|logged-models|experiments)/(?!search)|PUT|PATCH)"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path) -> None:
    """The patience of a test, and its own working folder."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(outbox, "POLL_S", 0.05)
    monkeypatch.setattr(patience, "PATIENCE_S", 1.0)
    monkeypatch.setattr(patience, "POLL_S", 0.05)
    monkeypatch.setattr("netzip_mlflow.stages.resend.PATIENCE_S", 0.3)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def between(served, proxy):
    """The proxy in front of the server."""
    return proxy(served)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def tracker(between, said, request) -> Iterator[Tracker]:
    """In an experiment of the test's own."""
    yield Tracker(between.uri, request.node.name, say=said.append)
    between.heal()


@pytest.fixture
def scratch(tmp_path, folder) -> Path:
    """A job's work folder: a candidate's, with files beside what ships."""
    place = tmp_path / "tmp" / "netzip-abc"
    place.mkdir(parents=True)
    folder.rename(place / "small")
    (place / "layers.csv").write_text("layer,bits\n")
    (place / "plots").mkdir()
    for name in ("a.svg", "b.svg"):
        (place / "plots" / name).write_text(name)
    return place


@pytest.fixture
def work(tracker, scratch) -> Callable[..., None]:
    """`work(before)`: a parent, a baseline, and a candidate with all that one logs; `before` is
    called when the parent is there."""

    def run(before: Callable[[], None] = lambda: None) -> None:
        with tracker.parent("compress", "digits", folder=scratch) as parent:
            before()
            baseline = parent.child("baseline", "baseline")
            child = parent.child("candidate", "small", {"netzip.baseline": baseline.id})
            child.model(scratch / "small", "small")
            child.log({"accuracy/top1": 0.5}, params={"technique/0.half": "x"})
            child.log({"training/loss": 0.25}, step=3)
            child.artifact(scratch / "layers.csv")
            child.artifact(scratch / "plots", "plots")
            child.text("a line\n", "netzip.log")
            child.dataset("digits", "0123456789abcdef", "test")
            baseline.end()
            child.end("FAILED", "a reason")

    return run


@pytest.fixture
def everything(tracker, served) -> Callable[[], None]:
    """Fails unless the store has all that `work` writes, once."""
    import mlflow

    def check(status: str = "FINISHED") -> None:
        client = mlflow.MlflowClient(served)
        runs = client.search_runs([tracker.experiment_id])
        found = {run.info.run_name: run for run in runs}
        assert len(runs) == len(found) == 3
        parent, baseline, small = (found[n] for n in ("digits", "baseline", "small"))
        assert parent.info.status == status
        assert (baseline.info.status, small.info.status) == ("FINISHED", "FAILED")
        assert small.data.tags["netzip.reason"] == "a reason"
        assert small.data.tags["netzip.parent"] == parent.info.run_id
        assert small.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert small.data.tags["netzip.baseline"] == baseline.info.run_id
        assert "netzip.refused" not in small.data.tags
        assert small.data.metrics == {"accuracy/top1": 0.5, "training/loss": 0.25}
        (loss,) = client.get_metric_history(small.info.run_id, "training/loss")
        assert loss.step == 3
        assert small.data.params == {"technique/0.half": "x"}
        assert len(small.inputs.dataset_inputs) == 1
        files = {item.path for item in client.list_artifacts(small.info.run_id)}
        assert files == {"layers.csv", "plots", "netzip.log"}
        drawn = {item.path for item in client.list_artifacts(small.info.run_id, "plots")}
        assert drawn == {"plots/a.svg", "plots/b.svg"}
        models = client.search_logged_models([tracker.experiment_id])
        (output,) = small.outputs.model_outputs
        assert [model.model_id for model in models] == [output.model_id]
        assert str(models[0].status) == "READY"
        linked = {metric.key for metric in client.get_logged_model(output.model_id).metrics}
        assert "accuracy/top1" in linked
        assert small.info.end_time - small.info.start_time < 60_000

    return check


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 503])
def test_an_outage_that_health_does_not_show_waits(work, everything, between, status, tmp_path):
    """Until the last but one request of the end: nothing is lost, nothing is there twice."""
    work(lambda: between.answer(status, WRITES, times=5))
    everything()
    assert list(tmp_path.glob("netzip-unsent-*")) == []


@pytest.mark.parametrize(
    "when", ["POST .*/runs/create", "POST .*/logged-models$", "POST .*/log-batch", "PUT .*a.svg"]
)
def test_an_answer_that_is_lost_leaves_nothing_twice(work, everything, between, when):
    work(lambda: between.reset(when, answered=True, times=1))
    everything()
    assert any(fault.times == 0 for fault in between.faults), "it was met"


def test_connections_that_break_and_answers_that_come_late(work, everything, between):
    def faults() -> None:
        between.reset(WRITES, times=3)
        between.delay(0.3, WRITES, times=3)

    work(faults)
    everything()


@pytest.mark.parametrize("name", ["layers.csv", "netzip.log"])
def test_a_file_that_is_refused_costs_that_file(
    work, everything, between, said, served, tracker, tmp_path, name
):
    import mlflow

    work(lambda: between.answer(413, f"PUT .*{name}"))
    assert [line for line in said if name in line and "413" in line], said
    client = mlflow.MlflowClient(served)
    (small,) = client.search_runs([tracker.experiment_id], "attributes.run_name = 'small'")
    assert name in small.data.tags["netzip.refused"]
    assert "413" in small.data.tags["netzip.refused"]
    assert name not in {item.path for item in client.list_artifacts(small.info.run_id)}
    assert small.data.metrics["accuracy/top1"] == 0.5
    (kept,) = tmp_path.glob("netzip-unsent-*")
    files = {path.name for path in kept.rglob("*")}
    assert files == {"unsent.json", "layers.csv"} - ({"layers.csv"} - {name})
    between.heal()
    assert not resend(kept).left
    everything()


def test_a_model_that_is_refused_is_not_shown_as_pending(
    work, everything, between, served, tracker, tmp_path
):
    import mlflow

    work(lambda: between.answer(413, "PUT .*model.onnx"))
    client = mlflow.MlflowClient(served)
    (model,) = client.search_logged_models([tracker.experiment_id])
    assert str(model.status) == "FAILED"
    (kept,) = tmp_path.glob("netzip-unsent-*")
    assert (kept / "small" / "model.onnx").is_file()
    between.heal()
    assert not resend(kept).left
    assert str(client.get_logged_model(model.model_id).status) == "READY"


class TestGoneForGood:
    @pytest.fixture
    def kept(self, work, between, tmp_path) -> Path:
        with pytest.raises(TrackingLost) as lost:
            work(lambda: between.answer(500, WRITES))
        (place,) = tmp_path.glob("netzip-unsent-*")
        assert f"netzip resend {place}" in str(lost.value)
        between.heal()
        return place

    def test_what_was_measured_is_sent_later_as_it_was(self, kept, everything):
        for name in ("small/model.onnx", "layers.csv", "plots/a.svg"):
            assert (kept / name).is_file()
        resent = resend(kept)
        assert resent.left == ()
        assert resent.sent > 10
        everything()
        again = resend(kept)
        assert (again.sent, again.left) == (0, ())
        everything()
        writes = json.loads((kept / "unsent.json").read_text())["writes"]
        assert writes == []

    def test_a_resend_that_is_interrupted_goes_on(self, kept, everything, between, monkeypatch):
        # on a busy machine too, what was reset is tried again within it
        monkeypatch.setattr("netzip_mlflow.stages.resend.PATIENCE_S", 4.0)
        between.answer(503, "PUT")
        between.reset("POST .*/runs/create", answered=True, times=1)
        first = resend(kept)
        assert first.left
        assert all("503" in reason for _, reason in first.left), first.left
        between.heal()
        second = resend(kept)
        assert second.left == ()
        everything()

    def test_runs_that_the_store_has_forgotten_are_said(self, kept):
        content = json.loads((kept / "unsent.json").read_text())
        content["runs"] = dict.fromkeys(content["runs"], "0" * 32)
        (kept / "unsent.json").write_text(json.dumps(content))
        left = resend(kept).left
        assert left
        assert all("not found" in reason for what, reason in left if "of digits" in what), left


def test_an_interrupt_while_the_end_is_sent_keeps_all(work, between, tmp_path, tracker):
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    tracker.outbox._pause = interrupted
    with pytest.raises(KeyboardInterrupt):
        work(lambda: between.answer(503, WRITES))
    (kept,) = tmp_path.glob("netzip-unsent-*")
    assert (kept / "small" / "model.onnx").is_file()


def test_reads_wait_too(tracker, between):
    between.answer(503, "search", times=3)
    assert tracker.client.search_runs([tracker.experiment_id]) == []
    between.answer(503, "search")
    with pytest.raises(TrackingLost, match="503"):
        tracker.client.search_runs([tracker.experiment_id])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("{", "unsent.json"),
        ("[]", "unsent.json"),
        ("[" * 100_000, "unsent"),
    ],
    ids=["none", "cut off", "not ours", "deep"],
)
def test_a_folder_that_holds_nothing_to_send(tmp_path, content, says):
    if content is not None:
        (tmp_path / "unsent.json").write_text(content)
    with pytest.raises(InputError, match=says):
        resend(tmp_path)


def test_figures_that_are_refused_end_the_job(tracker):
    def run() -> None:
        with tracker.parent("compress", "digits") as parent:
            parent.log(params={"a": 1})
            parent.log(params={"a": 2})

    with pytest.raises(NetzipError, match="Changing param"):
        run()
    (run_,) = tracker.client.search_runs([tracker.experiment_id])
    assert run_.info.status == "FAILED"


def test_a_candidate_whose_run_was_deleted_fails_alone(tracker, between, said):
    """By somebody who watches: neither its log nor the tag that names the log is taken."""
    with tracker.parent("compress", "digits") as parent:
        run = parent.child("candidate", "deleted")
        other = parent.child("candidate", "small")
        tracker.client.delete_run(run.id)
        between.answer(413, "PUT .*netzip.log")
        candidates.fail(Candidate("deleted", "half", run, Path("none")), NetzipError("no memory"))
        other.log({"accuracy/top1": 0.5})
    runs = tracker.client.search_runs([tracker.experiment_id])
    assert {r.info.run_name: r.info.status for r in runs} == {
        "digits": "FINISHED",
        "small": "FINISHED",
    }
    assert [line for line in said if "netzip.log of deleted" in line], said
