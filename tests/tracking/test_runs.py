"""Runs on a real sqlite store: families, resuming, how they end, what is refused, what waits."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path

import pytest

from netzip_mlflow import recipe
from netzip_mlflow.errors import InputError, NetzipError, TrackingLost, TrackingUnavailable
from netzip_mlflow.tracking import Killed, Tracker
from netzip_mlflow.tracking.runs import Run, explain


def read(tracker, run):
    return tracker.client.get_run(run.id if hasattr(run, "id") else run)


class TestFamily:
    def test_children_carry_their_parent_in_both_tags(self, tracker):
        with tracker.parent("compress", "digits") as parent:
            child = parent.child("candidate", "small", {"netzip.chain": "half(fp16)"})
            child.end("FINISHED")
        found = read(tracker, child)
        assert found.info.run_name == "small"
        assert found.info.experiment_id == tracker.experiment_id
        assert found.data.tags["netzip.kind"] == "candidate"
        assert found.data.tags["netzip.chain"] == "half(fp16)"
        assert found.data.tags["netzip.parent"] == parent.id
        assert found.data.tags["mlflow.parentRunId"] == parent.id
        above = read(tracker, parent)
        assert above.info.run_name == "digits"
        assert above.data.tags["netzip.kind"] == "compress"
        assert "mlflow.parentRunId" not in above.data.tags

    def test_below_shows_a_child_under_another_run(self, tracker):
        with tracker.parent("compress", "digits") as parent:
            measured = parent.child("candidate", "small")
        with tracker.parent("measure", "again") as second:
            child = second.child("measurement", "small", below=measured.id)
        tags = read(tracker, child).data.tags
        assert tags["mlflow.parentRunId"] == measured.id
        assert tags["netzip.parent"] == second.id

    def test_the_experiment_is_found_again_by_name(self, tracker, store):
        assert Tracker(store, "tests").experiment_id == tracker.experiment_id
        assert Tracker(store, "other").experiment_id != tracker.experiment_id
        assert tracker.client.get_experiment(tracker.experiment_id).name == "tests"

    def test_the_default_experiment_is_netzip_or_the_environments(self, store, monkeypatch):
        first = Tracker(store)
        assert first.client.get_experiment(first.experiment_id).name == "netzip"
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
        second = Tracker(store)
        assert second.client.get_experiment(second.experiment_id).name == "named"
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", first.experiment_id)
        assert Tracker(store).experiment_id == first.experiment_id

    def test_an_experiment_that_is_asked_for_beats_the_environment(self, store, monkeypatch):
        other = Tracker(store, "other").experiment_id
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", other)
        asked = Tracker(store, "asked")
        assert asked.client.get_experiment(asked.experiment_id).name == "asked"

    def test_a_deleted_experiment_is_bad_input(self, tracker, store):
        tracker.client.delete_experiment(tracker.experiment_id)
        with pytest.raises(InputError, match=r"experiment 'tests' is deleted: restore it"):
            Tracker(store, "tests")


class TestResume:
    def test_the_run_that_mlflow_started_is_ours_in_its_own_experiment(
        self, tracker, store, monkeypatch
    ):
        client = tracker.client
        home = client.create_experiment("home")
        started = client.create_run(home, run_name="given")
        monkeypatch.setenv("MLFLOW_RUN_ID", started.info.run_id)
        resumed = Tracker(store, "not-this-one")
        with resumed.parent("compress", "digits") as parent:
            child = parent.child("candidate", "small")
            child.end("FINISHED")
        assert parent.id == started.info.run_id
        assert read(tracker, parent).info.status == "FINISHED"
        assert read(tracker, parent).info.run_name == "given"
        assert read(tracker, parent).data.tags["netzip.kind"] == "compress"
        assert read(tracker, child).info.experiment_id == home
        assert client.get_experiment_by_name("not-this-one") is None

    def test_a_run_id_that_is_not_in_the_store_is_bad_input(self, store, monkeypatch):
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        with pytest.raises(InputError, match="cannot be used"):
            Tracker(store)

    def test_the_started_run_has_an_owner_before_any_work(self, tracker, store, monkeypatch):
        """Between `mlflow run` and our own start lie seconds; a kill -9 there must be found too."""
        started = tracker.client.create_run(tracker.experiment_id)
        monkeypatch.setenv("MLFLOW_RUN_ID", started.info.run_id)
        Tracker(store)
        assert "netzip.process" in read(tracker, started.info.run_id).data.tags


class TestEnd:
    def test_finished(self, tracker):
        with tracker.parent("compress", "digits") as parent:
            assert read(tracker, parent).info.status == "RUNNING"
        found = read(tracker, parent)
        assert found.info.status == "FINISHED"
        assert found.info.end_time >= found.info.start_time
        assert "netzip.reason" not in found.data.tags

    @pytest.mark.parametrize(
        ("error", "status", "reason"),
        [
            (NetzipError("training diverged"), "FAILED", "training diverged"),
            (ValueError("odd"), "FAILED", "odd"),
            (RuntimeError(), "FAILED", "RuntimeError"),
            (SystemExit(0), "FAILED", "0"),
            (KeyboardInterrupt(), "KILLED", "stopped by Ctrl-C"),
            (Killed("SIGTERM"), "KILLED", "stopped by SIGTERM"),
        ],
        ids=["ours", "any", "wordless", "exit", "ctrl-c", "sigterm"],
    )
    def test_a_fault_passes_on_and_leaves_its_reason(self, tracker, error, status, reason):
        with (
            pytest.raises(type(error)) as caught,
            tracker.parent("compress", "digits") as parent,
        ):
            raise error
        assert caught.value is error
        found = read(tracker, parent)
        assert found.info.status == status
        assert found.data.tags["netzip.reason"] == reason
        assert found.data.tags["mlflow.note.content"] == f"**{status.lower()}**: {reason}"

    def test_a_fault_is_said_above_what_was_noted(self, tracker):
        def work() -> None:
            with tracker.parent("search", "digits") as parent:
                parent.note("3 of 9 trials")
                runs.append(parent)
                raise Killed("SIGTERM")

        runs: list[Run] = []
        with pytest.raises(Killed):
            work()
        noted = read(tracker, runs[0]).data.tags["mlflow.note.content"]
        assert noted == "**killed**: stopped by SIGTERM\n\n3 of 9 trials"

    def test_a_note_of_a_run_that_ends_well_stays(self, tracker):
        with tracker.parent("search", "digits") as parent:
            parent.note("first")
            parent.note("x" * 9000)
        assert read(tracker, parent).data.tags["mlflow.note.content"] == "x" * 8000

    def test_a_child_still_open_ends_with_its_parent(self, tracker):
        def work() -> None:
            with tracker.parent("compress", "digits") as parent:
                parent.child("candidate", "done").end("FINISHED")
                parent.child("candidate", "failed").end("FAILED", "no calibration data")
                parent.child("candidate", "open")
                raise NetzipError("the disk is full")

        with pytest.raises(NetzipError):
            work()
        rows = {
            run.info.run_name: (run.info.status, run.data.tags.get("netzip.reason"))
            for run in tracker.client.search_runs([tracker.experiment_id])
        }
        assert rows == {
            "digits": ("FAILED", "the disk is full"),
            "done": ("FINISHED", None),
            "failed": ("FAILED", "no calibration data"),
            "open": ("FAILED", "the disk is full"),
        }

    def test_a_long_reason_is_cut_to_what_a_tag_holds(self, tracker):
        with (
            pytest.raises(NetzipError),
            tracker.parent("compress", "digits") as parent,
        ):
            raise NetzipError("x" * 20_000)
        tags = read(tracker, parent).data.tags
        assert set(tags["netzip.reason"]) == {"x"}
        assert 1000 < len(tags["netzip.reason"]) <= 8000
        assert read(tracker, parent).info.status == "FAILED"

    def test_explain_leaves_the_reason_on_a_run_of_someone_elses(self, tracker, store):
        run = tracker.client.create_run(tracker.experiment_id).info.run_id
        explain(store, run, "data.name: unknown data set")
        explain(store, "0" * 32, "a run that is gone is nobody's loss")
        found = read(tracker, run)
        assert found.data.tags["netzip.reason"] == "data.name: unknown data set"
        assert found.data.tags["mlflow.note.content"].endswith("data.name: unknown data set")
        assert found.info.status == "RUNNING", "whoever started it ends it"


class TestLog:
    def test_metrics_params_and_tags_arrive(self, tracker):
        with tracker.parent("compress", "digits") as run:
            run.log({"speed/macs": 12.0}, params={"recipe/seed": 3}, tags={"netzip.recipe": "r"})
            run.log({"train/loss": 2.0}, step=0)
            run.log({"train/loss": 1.0}, step=1)
        found = read(tracker, run)
        assert found.data.metrics == {"speed/macs": 12.0, "train/loss": 1.0}
        assert found.data.params == {"recipe/seed": "3"}
        assert found.data.tags["netzip.recipe"] == "r"
        history = tracker.client.get_metric_history(run.id, "train/loss")
        assert [(m.step, m.value) for m in history] == [(0, 2.0), (1, 1.0)]

    def test_no_password_and_no_variable_s_value_arrives(self, tracker, tmp_path, monkeypatch):
        monkeypatch.setenv("NETZIP_TEST_DATA", str(tmp_path / "elsewhere"))
        recipe.locate("${NETZIP_TEST_DATA}/x", "data.path")
        url, file = "postgresql://me:s3cret@h/d?sslpassword=s3cret", tmp_path / "elsewhere" / "x"
        with contextlib.suppress(ValueError), tracker.parent("compress", "p") as parent:
            parent.log(params={"url": url}, tags={"netzip.storage": url, "file": str(file)})
            parent.text(f"{url} {file}", "netzip.log")
            raise ValueError(f"{url} and {file}/1.png")
        found = tracker.client.get_run(parent.id)
        hidden = "postgresql://me:***@h/d?sslpassword=***"
        assert found.data.params["url"] == hidden
        assert found.data.tags["netzip.storage"] == hidden
        assert found.data.tags["file"] == "${NETZIP_TEST_DATA}/x"
        assert found.data.tags["netzip.reason"] == f"{hidden} and ${{NETZIP_TEST_DATA}}/x/1.png"
        place = tracker.client.download_artifacts(parent.id, "netzip.log", str(tmp_path))
        assert Path(place).read_text() == f"{hidden} ${{NETZIP_TEST_DATA}}/x"

    def test_more_than_one_batch_holds_arrives_whole(self, tracker):
        with tracker.parent("compress", "digits") as run:
            run.log(
                {f"m/{i}": float(i) for i in range(1100)},
                params={f"p/{i}": i for i in range(120)},
                tags={f"t.{i}": str(i) for i in range(120)},
            )
        found = read(tracker, run)
        assert found.data.metrics == {f"m/{i}": float(i) for i in range(1100)}
        assert found.data.params == {f"p/{i}": str(i) for i in range(120)}
        assert {k: v for k, v in found.data.tags.items() if k.startswith("t.")} == {
            f"t.{i}": str(i) for i in range(120)
        }

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_value_that_is_not_finite_is_refused_by_name(self, tracker, value):
        with (
            tracker.parent("compress", "digits") as run,
            pytest.raises(NetzipError, match=rf"ratio/its of digits is {value}"),
        ):
            run.log({"speed/macs": 1.0, "ratio/its": value})
        assert read(tracker, run).data.metrics == {}, "nothing of a refused batch is logged"

    def test_the_data_set_is_an_input(self, tracker):
        with tracker.parent("compress", "digits") as run:
            run.dataset("digits", "0123456789abcdef", "test")
        (given,) = read(tracker, run).inputs.dataset_inputs
        assert (given.dataset.name, given.dataset.digest) == ("digits", "0123456789abcdef")
        assert [(t.key, t.value) for t in given.tags] == [("mlflow.data.context", "test")]

    def test_files_folders_and_texts(self, tracker, tmp_path: Path):
        folder = tmp_path / "twin"
        folder.mkdir()
        (folder / "twin.json").write_text("{}")
        with tracker.parent("compress", "digits") as run:
            run.artifact(folder, "twin")
            run.artifact(folder / "twin.json")
            run.text("name: digits\n", "recipe.yaml")
        client = tracker.client
        assert {a.path for a in client.list_artifacts(run.id)} == {
            "twin",
            "twin.json",
            "recipe.yaml",
        }
        assert {a.path for a in client.list_artifacts(run.id, "twin")} == {"twin/twin.json"}
        fetched = client.download_artifacts(run.id, "recipe.yaml", str(tmp_path))
        assert Path(fetched).read_text() == "name: digits\n"

    def test_tags_of_the_experiment(self, tracker):
        with tracker.parent("compare", "compare"):
            tracker.set_experiment_tags(tracker.experiment_id, {"a": "1", "b": "2"})
            tracker.set_experiment_tags(tracker.experiment_id, {"a": "3"})
        tags = tracker.client.get_experiment(tracker.experiment_id).tags
        assert (tags["a"], tags["b"]) == ("3", "2")

    def test_the_description_of_the_experiment_stays_around_ours(self, tracker):
        note = "mlflow.note.content"

        def written(text: str) -> str:
            home = tracker.experiment_id
            tracker.set_experiment_tags(home, {note: text})
            return tracker.client.get_experiment(home).tags[note]

        tracker.client.set_experiment_tag(tracker.experiment_id, note, "Signs of *roads*.")
        assert written("See one.").startswith("Signs of *roads*.\n\n")
        below = f"{written('See two.')}\n\nAsk Ada."
        tracker.client.set_experiment_tag(tracker.experiment_id, note, below)
        again = written("See three.")
        assert again.startswith("Signs of *roads*.\n\n")
        assert again.endswith("\n\nAsk Ada.")
        assert [word in again for word in ("one", "two", "three")] == [False, False, True]


class TestAway:
    """The server goes away in the middle; the clock is the test's own."""

    def test_one_that_comes_back_has_everything_as_if_it_had_never_left(self, remote, server):
        with remote.parent("compress", "digits") as parent:
            server.away()
            baseline = parent.child("baseline", "baseline")
            child = parent.child("candidate", "small")
            child.log({"accuracy/top1": 0.5}, params={"technique/0.half": "x"})
            child.text("a,b\n", "layers.csv")
            baseline.end("FINISHED")
            child.end("FINISHED")
            child.log(tags={"netzip.baseline": baseline.id})
            assert child.id.startswith("unsent-"), "nobody knows yet under which id it will be kept"
            server.away(until=server.now + 10)
        found = {r.info.run_name: r for r in remote.client.search_runs([remote.experiment_id])}
        assert {n: r.info.status for n, r in found.items()} == dict.fromkeys(
            ("digits", "baseline", "small"), "FINISHED"
        )
        small = found["small"]
        assert small.data.metrics == {"accuracy/top1": 0.5}
        assert small.data.params == {"technique/0.half": "x"}
        assert small.data.tags["mlflow.parentRunId"] == parent.id
        assert small.data.tags["netzip.baseline"] == found["baseline"].info.run_id == baseline.id
        assert [a.path for a in remote.client.list_artifacts(small.info.run_id)] == ["layers.csv"]

    def test_one_that_stays_away_is_an_error_that_names_what_was_kept(
        self, remote, server, tmp_path
    ):
        folder = tmp_path / "scratch" / "netzip-abc"
        folder.mkdir(parents=True)

        def work() -> None:
            with remote.parent("compress", "digits", folder=folder) as parent:
                server.away()
                parent.log({"speed/macs": 1.0})

        with pytest.raises(TrackingLost) as caught:
            work()
        assert caught.value.exit_status == 1
        assert "503" in str(caught.value)
        kept = tmp_path / "netzip-unsent-abc"
        assert f"what was measured is in {kept}" in str(caught.value)
        assert f"netzip resend {kept}" in str(caught.value)
        batch, end = json.loads((kept / "unsent.json").read_text())["writes"]
        assert batch["what"]["metrics"] == {"speed/macs": 1.0}
        assert (end["kind"], end["what"]["status"]) == ("end", "FINISHED")
        assert server.now >= 50, "it waits a while for a server that only restarts"

    def test_a_refused_write_that_waited_leaves_no_run_running(self, remote, server):
        def work() -> None:
            with remote.parent("compress", "digits") as parent:
                parent.log(params={"recipe/seed": 1})
                server.away(until=5.0)
                parent.log(params={"recipe/seed": 2})

        with pytest.raises(NetzipError, match="Changing param values is not allowed"):
            work()
        (run,) = remote.client.search_runs([remote.experiment_id])
        assert run.info.status == "FINISHED"

    def test_a_refused_write_of_one_run_fails_no_other(self, remote, server):
        """And each of them ends, although the refusal is heard while they are ended."""
        with contextlib.suppress(NetzipError), remote.parent("compress", "digits") as parent:
            first, second = (parent.child("candidate", name) for name in "ab")
            first.log(params={"technique/0.ptq/bits": 8})
            server.away()
            first.log(params={"technique/0.ptq/bits": 4})
            server.back()
            server.now += 5
            second.log({"accuracy/top1": 0.5})
            server.away()
            first.log(params={"technique/0.ptq/bits": 2})
            server.back()
        found = {r.info.run_name: r for r in remote.client.search_runs([remote.experiment_id])}
        assert {name: run.info.status for name, run in found.items()} == {
            "digits": "FINISHED",
            "a": "FINISHED",
            "b": "FINISHED",
        }
        assert found["b"].data.metrics == {"accuracy/top1": 0.5}

    def test_a_signal_says_what_is_lost_and_passes(self, remote, server, tmp_path):
        said: list[str] = []
        remote._say = said.append
        folder = tmp_path / "scratch" / "netzip-abc"
        folder.mkdir(parents=True)
        stop = Killed("SIGTERM")

        def work() -> None:
            with remote.parent("compress", "digits", folder=folder) as parent:
                parent.child("candidate", "small")
                server.away()
                raise stop

        with pytest.raises(Killed) as caught:
            work()
        assert caught.value is stop
        kept = tmp_path / "netzip-unsent-abc"
        (line,) = said
        assert f"netzip resend {kept}" in line
        assert "503" in line
        writes = json.loads((kept / "unsent.json").read_text())["writes"]
        assert [w["what"].get("status") for w in writes if w["kind"] == "end"] == ["KILLED"] * 2
        assert server.now < 8, "who asks a process to end may kill it after ten seconds"

    @pytest.mark.parametrize(("stop", "seconds"), [(Killed("SIGTERM"), "2"), (ValueError(), "7")])
    def test_no_call_lasts_long_for_who_asked_a_process_to_end(
        self, tracker, monkeypatch, stop, seconds
    ):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
        end, seen = tracker.sender.client.set_terminated, []

        def noted(*arguments, **named):
            seen.append(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])
            end(*arguments, **named)

        monkeypatch.setattr(tracker.sender.client, "set_terminated", noted)

        def work() -> None:
            with tracker.parent("compress", "digits") as parent:
                parent.child("candidate", "small")
                raise stop

        with pytest.raises(type(stop)):
            work()
        assert seen == [seconds, seconds]
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"

    def test_what_is_kept_is_said_once(self, remote, server, tmp_path):
        said: list[str] = []
        remote._say = said.append
        folder = tmp_path / "scratch" / "netzip-abc"
        folder.mkdir(parents=True)
        with (
            pytest.raises(TrackingLost, match="netzip resend"),
            remote.parent("compress", "digits", folder=folder),
        ):
            server.away()
        assert said == []


class TestSearch:
    """What a search writes about runs of other processes."""

    def test_trials_that_nobody_ended(self, tracker):
        with tracker.parent("search", "digits") as parent:
            trials = {name: parent.child("trial", name) for name in ("made", "lost", "at work")}
            parent.end_trials({trials["made"].id: "FINISHED", trials["at work"].id: "RUNNING"})
            states = {name: read(tracker, run).info.status for name, run in trials.items()}
        assert states == {"made": "FINISHED", "lost": "KILLED", "at work": "RUNNING"}

    def test_a_run_of_an_earlier_parent_that_was_created_late(self, tracker, remote, server, store):
        """The study knows it by the text that stood for it: the store may know it since."""
        with remote.parent("search", "first") as first:
            server.away()
            trial = first.child("trial", "t")
            known = trial.id
            server.back()
        assert known.startswith("unsent-")
        with Tracker(store, "tests").parent("search", "second") as second:
            second.adopt(known, "FINISHED", {"netzip.baseline": "b"})
        tags = read(remote, trial).data.tags
        assert (tags["netzip.parent"], tags["netzip.baseline"]) == (second.id, "b")


@pytest.mark.slow
def test_a_sqlite_file_that_somebody_locks_waits(tracker, tmp_path, locked):
    """MLflow itself waits 20 seconds for a lock, once; then work goes on, and the end waits."""
    with tracker.parent("compress", "digits", folder=tmp_path / "none") as parent:
        with locked(tmp_path / "mlflow.db"):
            parent.log({"speed/macs": 1.0})
            child = parent.child("candidate", "small")
            child.end()
        assert len(tracker.outbox) == 3
    found = {r.info.run_name: r for r in tracker.client.search_runs([tracker.experiment_id])}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found["digits"].data.metrics == {"speed/macs": 1.0}
    assert set(found) == {"digits", "small"}


class TestOpen:
    def test_a_database_that_is_none_is_bad_input(self, tmp_path, monkeypatch):
        file = tmp_path / "notes.db"
        file.write_text("this is no database " * 100)
        monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
        with pytest.raises(InputError, match=r"notes\.db"):
            Tracker(f"sqlite:///{file}")

    def test_a_scheme_that_mlflow_does_not_know_is_bad_input(self, monkeypatch):
        monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
        with pytest.raises(InputError, match="gopher://store"):
            Tracker("gopher://store")

    def test_a_folder_that_is_not_there_is_bad_input(self, tmp_path):
        with pytest.raises(TrackingUnavailable, match="is not a writable folder"):
            Tracker(f"sqlite:///{tmp_path}/no/such/mlflow.db")
