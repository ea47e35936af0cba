"""What every command shares: a parent that ends, and a work folder that goes with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from netzip_mlflow import folders
from netzip_mlflow.errors import InputError, NetzipError, TrackingLost
from netzip_mlflow.runs.job import chosen, flattened, job, open_tracker
from netzip_mlflow.tracking import Killed


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.mark.parametrize("fault", [None, NetzipError("no"), KeyboardInterrupt()])
def test_the_work_folder_lasts_as_long_as_the_run(workplace, scratch, fault):
    tracker, seen = open_tracker(workplace), []

    def work() -> None:
        with job("compress", "digits", workplace, tracker) as at_work:
            seen.append(at_work.folder)
            (at_work.folder / "model.onnx").write_bytes(b"measured")
            if fault is not None:
                raise fault

    if fault is None:
        work()
    else:
        with pytest.raises(type(fault)):
            work()
    assert seen[0].parent == scratch
    assert list(scratch.iterdir()) == []
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    status = {type(None): "FINISHED", NetzipError: "FAILED", KeyboardInterrupt: "KILLED"}
    assert run.info.status == status[type(fault)]


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("second", ["SIGTERM", "SIGINT"])
def test_a_second_signal_while_runs_are_ended(workplace, scratch, monkeypatch, first, second):
    """It comes when the first of three runs has just been ended."""
    tracker = open_tracker(workplace)
    end, sent = tracker.sender.client.set_terminated, []

    def interrupted(*arguments, **named):
        end(*arguments, **named)
        if not sent:
            sent.append(second)
            os.kill(os.getpid(), getattr(signal, second))

    monkeypatch.setattr(tracker.sender.client, "set_terminated", interrupted)

    def work() -> None:
        with job("compress", "digits", workplace, tracker) as at_work:
            at_work.run.child("baseline", "baseline")
            at_work.run.child("candidate", "half")
            os.kill(os.getpid(), getattr(signal, first))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt if first == "SIGINT" else Killed):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert sent == [second]
    runs = tracker.client.search_runs([tracker.experiment_id])
    assert [run.info.status for run in runs] == ["KILLED"] * 3
    assert list(scratch.iterdir()) == []


def test_a_signal_of_which_a_library_makes_its_own_fault(workplace, scratch):
    """torch's export, in the middle of an import: `module has no attribute`."""
    tracker = open_tracker(workplace)

    def work() -> None:
        with job("compress", "digits", workplace, tracker):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except Killed:
                raise NetzipError("torch cannot export the network") from None

    with pytest.raises(Killed, match="SIGTERM"):
        work()
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    assert (run.info.status, run.data.tags["netzip.reason"]) == ("KILLED", "stopped by SIGTERM")


@pytest.mark.parametrize("kind", ["parent", "child"])
def test_a_signal_while_a_run_is_made(workplace, scratch, monkeypatch, kind):
    """The store has it already, and nobody else knows its id."""
    tracker = open_tracker(workplace)
    create, sent = tracker.sender.client.create_run, []

    def interrupted(*arguments, **named):
        run = create(*arguments, **named)
        if run.data.tags["netzip.kind"] == kind:
            sent.append(kind)
            os.kill(os.getpid(), signal.SIGTERM)
        return run

    monkeypatch.setattr(tracker.sender.client, "create_run", interrupted)

    def work() -> None:
        with job("parent", "digits", workplace, tracker) as at_work:
            at_work.run.child("child", "half")

    with pytest.raises(Killed):
        work()
    assert sent == [kind]
    runs = tracker.client.search_runs([tracker.experiment_id])
    assert {run.info.status for run in runs} == {"KILLED"}
    assert list(scratch.iterdir()) == []


# Works in a folder, and waits for a word that never comes.
VICTIM = """
import sys, tempfile
from netzip_mlflow.runs.job import Options, job, open_tracker
options = Options(sys.argv[1], experiment="tests")
with job("compress", "victim", options, open_tracker(options)) as work:
    (work.folder / "model.onnx").write_bytes(b"measured")
    tempfile.mkdtemp()
    print(work.folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_job_left_is_removed_by_the_next(workplace, scratch):
    command = [sys.executable, "-c", VICTIM, workplace.tracking_uri]
    with subprocess.Popen(
        command,
        env=os.environ | {"TMPDIR": str(scratch)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        try:
            with job("compress", "digits", workplace, open_tracker(workplace)) as at_work:
                assert {at_work.folder, left} == {*scratch.iterdir()}, "a living one keeps its own"
        finally:
            process.kill()
    assert list(scratch.iterdir()) == [left]
    with job("compress", "digits", workplace, open_tracker(workplace)) as at_work:
        assert list(scratch.iterdir()) == [at_work.folder]
    assert list(scratch.iterdir()) == []


def test_a_folder_goes_before_the_end_unless_it_is_still_to_be_sent(workplace, lost):
    tracker, leave = lost

    def work() -> None:
        with job("search", "digits", workplace, tracker) as at_work:
            leave()
            for name in ("trial-0", "trial-1"):
                (at_work.folder / name).mkdir()
                (at_work.folder / name / "layers.csv").write_text("layer\n")
            at_work.run.log({"accuracy/top1": 0.5})
            at_work.run.artifact(at_work.folder / "trial-1" / "layers.csv")
            for name in ("trial-0", "trial-1", "trial-2"):
                at_work.release(at_work.folder / name)
            assert [path.name for path in at_work.folder.glob("trial-*")] == ["trial-1"]

    with pytest.raises(TrackingLost):
        work()


@pytest.fixture
def lost(workplace, monkeypatch):
    """A tracker whose server is away for good; waiting for it takes no time."""
    from netzip_mlflow.tracking.outbox import Outbox

    tracker, seconds = open_tracker(workplace), []

    def refused(*_given, **_named):
        raise ConnectionError("refused")

    def leave() -> None:
        monkeypatch.setattr(tracker.sender.client, "log_batch", refused)
        monkeypatch.setattr(tracker.sender.client, "set_terminated", refused)
        tracker.outbox = Outbox(
            workplace.tracking_uri,
            tracker.sender,
            clock=lambda: float(len(seconds)),
            pause=seconds.append,
            health=lambda _uri: "refused",
        )

    return tracker, leave


def test_what_was_measured_is_kept_when_the_server_is_lost(workplace, scratch, lost, tmp_path):
    tracker, leave = lost

    def work() -> None:
        with job("compress", "digits", workplace, tracker) as at_work:
            (at_work.folder / "model.onnx").write_bytes(b"measured")
            leave()
            at_work.run.log({"accuracy/top1": 0.5})

    with pytest.raises(TrackingLost) as caught:
        work()
    (kept,) = tmp_path.glob("netzip-unsent-*")
    assert f"what was measured is in {kept}" in str(caught.value)
    assert sorted(path.name for path in kept.iterdir()) == [
        ".tmp",
        "model.onnx",
        "owner.json",
        "unsent.json",
    ]
    assert (kept / "model.onnx").read_bytes() == b"measured"
    assert list(scratch.iterdir()) == []


def test_metrics_that_could_not_be_sent_are_in_that_folder_too(workplace, scratch, lost, tmp_path):
    """A fault may come before the comparison has written its table."""
    tracker, leave = lost

    def work() -> None:
        with job("compress", "digits", workplace, tracker) as at_work:
            leave()
            at_work.run.log({"accuracy/top1": 0.123456})
            raise NetzipError("and then the disk was full")

    with pytest.raises(NetzipError):
        work()
    (kept,) = tmp_path.glob("netzip-unsent-*")
    *waiting, reason, end = json.loads((kept / "unsent.json").read_text())["writes"]
    assert {"accuracy/top1": 0.123456} in [each["what"].get("metrics") for each in waiting]
    assert (reason["name"], end["kind"], end["what"]["status"]) == ("digits", "end", "FAILED")
    assert reason["what"]["tags"]["netzip.reason"] == "and then the disk was full"


def test_it_is_kept_where_it_is_when_the_current_folder_is_gone(
    workplace, scratch, lost, tmp_path, monkeypatch
):
    tracker, leave = lost
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def work() -> None:
        with job("compress", "digits", workplace, tracker) as at_work:
            (at_work.folder / "model.onnx").write_bytes(b"measured")
            (tmp_path / "here").rmdir()
            leave()

    with pytest.raises(TrackingLost) as caught:
        work()
    (kept,) = scratch.iterdir()
    assert str(kept) in str(caught.value)
    folders.sweep()
    assert (kept / "model.onnx").read_bytes() == b"measured"


def test_bad_input_that_is_found_in_the_middle_is_a_failure(workplace):
    """Status 2 promises that nothing was started."""
    tracker = open_tracker(workplace)

    def work() -> None:
        with job("compress", "digits", workplace, tracker):
            raise InputError("accuracy/top1: zero")

    with pytest.raises(NetzipError) as caught:
        work()
    assert (caught.value.exit_status, str(caught.value)) == (1, "accuracy/top1: zero")
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    assert run.data.tags["netzip.reason"] == "accuracy/top1: zero"


def test_no_temporary_folder(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    tracker = open_tracker(workplace)

    def work() -> None:
        with job("compress", "digits", workplace, tracker):
            raise AssertionError("never begun")

    with pytest.raises(NetzipError, match="set TMPDIR") as caught:
        work()
    assert caught.value.exit_status == 1
    assert tracker.client.search_runs([tracker.experiment_id]) == []


def test_a_recipe_as_params():
    given = {"name": "r", "data": {"name": "digits", "path": None}, "tags": [], "batches": [1, 8]}
    assert flattened(given) == [("name", "r"), ("data/name", "digits"), ("batches", [1, 8])]


def test_chosen_keeps_the_recipes_order():
    assert chosen(["a", "b", "c"], ()) == ["a", "b", "c"]
    assert chosen(["a", "b", "c"], ("c", "a", "c")) == ["a", "c"]


def test_every_unknown_name_is_said_at_once():
    with pytest.raises(InputError) as caught:
        chosen(["small", "half"], ("smal", "huge"))
    assert len(caught.value.problems) == 2
    assert "did you mean 'small'?" in str(caught.value)


@pytest.mark.parametrize(
    "odd", ["a(b)", "a//b", "..", "", "x" * 300, "=1+1", "a\nb", "/a"], ids=lambda odd: odd[:8]
)
def test_arguments_that_mlflow_cannot_name_are_one_text(odd):
    given = {"model": {"name": "m", "arguments": {odd: 1, "plain": {"deep": 2}}}}
    found = dict(flattened(given))
    assert found["model/name"] == "m"
    assert json.loads(found["model/arguments"]) == {odd: 1, "plain": {"deep": 2}}
    assert found.keys() == {"model/name", "model/arguments"}


def test_params_of_any_arguments_reach_mlflow(workplace):
    tracker = open_tracker(workplace)
    odd = {"a(b)": 1, "many": {f"k{i}": i for i in range(300)}, "é": "x" * 9000}
    with job("compress", "digits", workplace, tracker) as work:
        work.run.log(params=dict(flattened({"recipe": {"arguments": odd}})))
    params = tracker.client.get_run(work.run.id).data.params
    assert params["recipe/arguments"].startswith('{"a(b)": 1')
