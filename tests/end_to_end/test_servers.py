"""Tracking servers that are down, that never answer, that go away for good, and that come back."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from pathlib import Path

import mlflow
import optuna
import pandas as pd
import pytest

from netzip_mlflow.tracking import Tracker

pytestmark = pytest.mark.slow


class TestDown:
    """Said within 6 seconds of the process's start: DESIGN.md, section 3."""

    # netzip in one process, with a word on what it had imported when it ended
    WATCHED = """
import sys
from netzip_mlflow import cli
try:
    cli.main(sys.argv[1:])
finally:
    print([name for name in ("torch", "mlflow", "pandas", "onnxruntime") if name in sys.modules])
"""

    @pytest.fixture(params=["closed", "deaf"])
    def uri(self, request):
        """A port that nobody listens on, and one that takes connections and never says a word."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
            if request.param == "deaf":
                yield uri
                return
        yield uri

    @pytest.mark.parametrize("resumed", [{}, {"MLFLOW_RUN_ID": "0" * 32}], ids=["", "mlflow-run"])
    def test_it_is_said_in_time_and_before_anything_heavy(self, folder, uri, resumed):
        command = (sys.executable, "-c", self.WATCHED, "compress", "quick.yaml")
        change = ("--set", "candidates={held: ['plugs:hold']}")
        started = time.monotonic()
        process = folder.start(*command, *change, MLFLOW_TRACKING_URI=uri, **resumed)
        assert process.stderr is not None
        first = process.stderr.readline()
        passed = time.monotonic() - started
        out, err = process.communicate(timeout=60)
        assert first.startswith(f"netzip: the tracking server {uri} does not answer: ")
        assert "--tracking-uri" in first
        assert err == ""
        assert process.returncode == 2
        assert out == "[]\n"
        assert passed < 6


class TestGoneForGood:
    @pytest.fixture
    def lost(self, folder, server):
        """A compress whose server is killed while its first candidate is made."""
        change = "candidates={first: ['plugs:pull', half], second: [ptq]}"
        process = folder.netzip(
            *("compress", "quick.yaml", "--json", "--set", change),
            MLFLOW_TRACKING_URI=server.uri,
        )
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def test_what_was_measured_is_where_the_message_says(self, folder, server, lost):
        status, out, err = lost
        assert (status, out) == (1, "")
        assert f"the tracking server {server.uri} went away" in err
        assert "Traceback" not in err
        named = re.search(r"what was measured is in ([^\s,]+),", err)
        assert named is not None
        place = Path(named.group(1))
        assert place.parent == folder.path
        for name in ("first", "second"):
            for file in ("model.onnx", "netzip.json", "golden.npz", "layers.csv", "twin/twin.json"):
                assert (place / "candidates" / name / file).is_file(), f"{name}/{file}"
        frame = pd.read_csv(place / "comparison" / "comparison.csv").set_index("name")
        assert frame.index[0] == "baseline"
        assert set(frame.index) == {"baseline", "first", "second"}
        for key in ("accuracy/top1", "speed/latency_ms", "size/disk_bytes", "score/ocs"):
            assert frame[key].notna().all()
        assert (place / "comparison" / "report.html").is_file()
        writes = json.loads((place / "unsent.json").read_text())["writes"]
        second = [each["what"] for each in writes if each["name"] == "second"]
        merged = {k: v for what in second for k, v in what.get("metrics", {}).items()}
        assert merged["score/ocs"] == pytest.approx(frame.loc["second", "score/ocs"])
        assert folder.scratch() == []
        assert f"netzip resend {place}" in err

        # what it could not end any more is ended by the next one that comes along, or as it was
        assert "RUNNING" in folder.states().values()
        Tracker(folder.uri, "netzip")
        assert "RUNNING" not in folder.states().values()
        server.start()
        for sent in (True, False):
            process = folder.netzip("resend", str(place), "--json")
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            resent = json.loads(out)
            assert (resent["sent"] > 0, resent["left"]) == (sent, [])
        assert set(folder.states().values()) == {"FINISHED"}
        runs = {run.info.run_name: run for run in folder.runs()}
        assert set(runs) == {"quick", "baseline", "first", "second"}
        assert runs["second"].data.metrics["score/ocs"] == merged["score/ocs"]
        client = mlflow.MlflowClient(server.uri)
        files = {item.path for item in client.list_artifacts(runs["second"].info.run_id)}
        assert {"twin", "layers.csv", "per_class.csv", "netzip.log"} <= files


class TestComesBack:
    def test_nothing_is_lost(self, folder, server, until):
        change = (
            "candidates={first: ['plugs:pull', half], second: ['plugs:wait', half], third: [ptq]}"
        )
        process = folder.netzip(
            *("compress", "quick.yaml", "--json", "--set", change),
            MLFLOW_TRACKING_URI=server.uri,
        )
        until(
            lambda: (folder.path / "waiting").exists() or process.poll() is not None,
            "the first candidate is made while the server is away",
        )
        assert process.poll() is None, process.communicate()
        assert not server.healthy()
        before = {run.info.run_name for run in folder.runs()}
        assert "second" not in before, "its run waits for the server"
        server.start()
        (folder.path / "back").touch()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        found = json.loads(out)
        runs = {run.info.run_id: run for run in folder.runs()}
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        assert len(runs) == 5
        names = [row["name"] for row in found["candidates"]]
        assert names == ["baseline", "first", "second", "third"]
        parent, baseline = found["run_id"], found["candidates"][0]["run_id"]
        client = mlflow.MlflowClient(server.uri)
        for row in found["candidates"]:
            run = runs[row["run_id"]]
            assert run.info.run_name == row["name"]
            assert run.data.metrics == pytest.approx(row["metrics"])
            assert run.data.tags["mlflow.parentRunId"] == parent
            assert run.data.tags["netzip.baseline"] == baseline
            files = {item.path for item in client.list_artifacts(run.info.run_id)}
            assert {"twin", "layers.csv", "per_class.csv", "netzip.log"} <= files
            (output,) = run.outputs.model_outputs
            linked = client.get_logged_model(output.model_id)
            assert {"accuracy/top1", "score/ocs"} <= {m.key for m in linked.metrics}
        files = {item.path for item in client.list_artifacts(parent)}
        assert {"comparison.csv", "report.html", "plots", "recipe.yaml"} <= files
        assert list(folder.path.glob("netzip-unsent-*")) == []

    def test_a_search_goes_on(self, folder, server, until):
        changes = {
            "candidates": "{first: ['plugs:pull', half], second: ['plugs:wait', half]}",
            "search.space": "[{one_of: [{'plugs:pull': {}}, {'plugs:wait': {}}]}, {half: {}}]",
            "search.trials": "2",
            "search.keep": "1",
        }
        told = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
        process = folder.netzip(
            *("search", "quick.yaml", "--json", "--study", "s", "--storage", "sqlite:///s.db"),
            *told,
            MLFLOW_TRACKING_URI=server.uri,
        )
        until(
            lambda: (folder.path / "waiting").exists() or process.poll() is not None,
            "the second trial is made while the server is away",
        )
        assert process.poll() is None, process.communicate()
        assert not server.healthy()
        server.start()
        (folder.path / "back").touch()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert json.loads(out)["trials"] == 2
        runs = folder.runs()
        assert {run.info.status for run in runs} == {"FINISHED"}
        trials = {r.info.run_id: r for r in runs if r.data.tags["netzip.kind"] == "trial"}
        study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder.path / 's.db'}")
        assert {t.user_attrs["netzip.run_id"] for t in study.trials} == set(trials)
        for trial in study.trials:
            run = trials[trial.user_attrs["netzip.run_id"]]
            assert run.data.metrics["validation/score/ocs"] == pytest.approx(trial.value)
