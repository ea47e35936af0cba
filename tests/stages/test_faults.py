"""Faults late in a job: a model that cannot be timed fails alone, and publishing ends no job."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from netzip_mlflow.cli.output import measure_object, measure_text
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics import process
from netzip_mlflow.metrics.family import Figures
from netzip_mlflow.report import plots, search_note, search_plots, table, views
from netzip_mlflow.runs import comparison
from netzip_mlflow.runtimes.onnxruntime import OrtSession
from netzip_mlflow.stages.compress import compress
from netzip_mlflow.stages.measure import measure_files
from netzip_mlflow.stages.search import notes as search_notes

BIND = OrtSession.bind
FRESH = {"size/load_ms": 2.0, "size/first_inference_ms": 1.0, "size/ram_bytes": 4e6}
KILLED = "a fresh process that runs it ended with status -9: Killed"
NAMES = ("int8", "half", "four")


def broken(*_given, **_named):
    """A piece that cannot be made."""
    raise RuntimeError("the ink is dry")


def owner(path: str | Path) -> str:
    """Whose file it is: each candidate has a folder of its own."""
    return Path(path).parent.name


@pytest.fixture(scope="module")
def trained(migrated, tmp_path_factory) -> Path:
    """A store with a baseline in it, which every test here finds: nothing is trained twice."""
    from netzip_mlflow.runs.job import Options
    from netzip_mlflow.stages.train import train

    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(migrated, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(process, "fresh_process", lambda *_: Figures(FRESH))
        train(recipe_of(folder), Options(f"sqlite:///{folder / 'mlflow.db'}", "faults"))
    return folder


def recipe_of(folder: Path, *overrides: str):
    from netzip_mlflow import data, models, tasks, techniques
    from netzip_mlflow.recipe import load

    file = folder / "recipe.yaml"
    file.write_text(
        """
name: small-digits
data: {name: digits, validation: 0.2, test: 0.2, calibration: 64}
model: {name: lenet5}
train: {epochs: 2, optimizer: adamw, lr: 0.004, batch: 64, precision: float32, threads: 1}
candidates: {int8: [ptq], half: [half], four: [{ptq: {bits: 4}}]}
measure: {threads: 1, latency: {target: 0.5, max_seconds: 1, min_rounds: 5}, throughput: [8]}
score: {max_drop_points: 100}
"""
    )
    return load(file, overrides, [data.check, models.check, tasks.check, techniques.check])


@pytest.fixture
def run(trained, monkeypatch, no_pictures):
    """`run(*overrides)` compresses in that store; gives the outcome and the runs of this one."""
    import mlflow

    from netzip_mlflow.runs.job import Options

    monkeypatch.chdir(trained)
    uri = f"sqlite:///{trained / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    monkeypatch.setattr(process, "fresh_process", lambda *_: Figures(FRESH))

    def newest(kind: str):
        (found,) = client.search_runs(
            [client.get_experiment_by_name("faults").experiment_id],
            f"tags.`netzip.kind` = '{kind}'",
            max_results=1,
            order_by=["start_time DESC"],
        )
        return found

    def start(*overrides: str):
        said: list[str] = []
        fault = outcome = None
        try:
            outcome = compress(
                recipe_of(trained, *overrides), Options(uri, "faults", say=said.append)
            )
        except NetzipError as error:
            fault = error
        parent = newest("compress")
        below = f"tags.`netzip.parent` = '{parent.info.run_id}'"
        children = client.search_runs([parent.info.experiment_id], below)
        runs = {child.info.run_name or "": child for child in children}
        return SimpleNamespace(
            outcome=outcome, fault=fault, parent=parent, runs=runs, said=said, client=client
        )

    return start


def statuses(left) -> dict[str, str]:
    return {name: run.info.status for name, run in left.runs.items()}


def facts(run) -> dict:
    return json.loads(run.data.tags["netzip.facts"])


class TestTiming:
    def test_each_ones_fault_is_its_own(self, run, monkeypatch):
        """One's fresh process is killed, one cannot be run on eight samples, one not at all."""

        def fresh(path, *_):
            if owner(path) == "half":
                raise NetzipError(f"{path}: {KILLED}")
            return Figures(FRESH)

        def bind(session, x):
            if owner(session._path) == "four":
                raise NetzipError("ONNX Runtime failed: the lamp is out")
            if owner(session._path) == "int8" and len(x) == 8:
                raise MemoryError("std::bad_alloc")
            return BIND(session, x)

        monkeypatch.setattr(process, "fresh_process", fresh)
        monkeypatch.setattr(OrtSession, "bind", bind)
        left = run()
        assert left.fault is None
        fine = dict.fromkeys(("baseline", "int8", "half"), "FINISHED")
        assert statuses(left) == fine | {"four": "FAILED"}
        assert left.parent.info.status == "FINISHED"
        assert left.parent.data.tags["netzip.best"] in ("int8", "half")

        half, int8, four = (left.runs[name] for name in ("half", "int8", "four"))
        assert not set(FRESH) & set(half.data.metrics)
        assert all("status -9" in facts(half)[f"absent {key}"] for key in FRESH)
        assert half.data.metrics["speed/latency_ms"] > 0
        assert "speed/throughput_b8" in half.data.metrics
        assert "speed/throughput_b8" not in int8.data.metrics
        assert "bad_alloc" in facts(int8)["absent speed/throughput_b8"]
        assert int8.data.metrics["size/ram_bytes"] == 4e6
        assert (
            "cannot be timed: ONNX Runtime failed: the lamp is out"
            in (four.data.tags["netzip.reason"])
        )
        assert four.data.metrics["accuracy/top1"] > 0, "what was measured before is kept"
        assert any("four failed: cannot be timed" in line for line in left.said)
        place = left.client.download_artifacts(left.parent.info.run_id, "comparison.csv")
        with Path(place).open(newline="", encoding="utf-8") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
        assert set(rows) == {"baseline", *NAMES}
        assert rows["four"]["status"] == "FAILED"
        assert "the lamp is out" in rows["four"]["error"]

    def test_one_that_fails_in_the_middle_of_the_rounds(self, run, monkeypatch):
        calls = []

        def bind(session, x):
            call = BIND(session, x)
            if owner(session._path) != "four":
                return call

            def broken():
                calls.append(1)
                if len(calls) > 20:
                    raise NetzipError("ONNX Runtime failed: the lamp went out")
                call()

            return broken

        monkeypatch.setattr(OrtSession, "bind", bind)
        left = run()
        assert statuses(left)["four"] == "FAILED"
        assert "went out" in left.runs["four"].data.tags["netzip.reason"]
        assert statuses(left)["int8"] == statuses(left)["half"] == "FINISHED"

    def test_a_score_that_needs_the_absent_figure_fails_alone(self, run, monkeypatch):
        def fresh(path, *_):
            if owner(path) == "half":
                raise NetzipError(f"{path}: {KILLED}")
            return Figures(FRESH)

        monkeypatch.setattr(process, "fresh_process", fresh)
        left = run("score.size=ram")
        assert statuses(left)["half"] == "FAILED"
        reason = left.runs["half"].data.tags["netzip.reason"]
        assert "half: the score needs size/ram_bytes, which is absent" in reason
        assert "status -9" in reason
        assert statuses(left)["int8"] == statuses(left)["four"] == "FINISHED"
        assert left.runs["int8"].data.metrics["ratio/C"] == 1.0
        assert left.parent.info.status == "FINISHED"

    def test_the_baselines_fault_ends_the_job_and_is_named(self, run, monkeypatch):
        def bind(session, x):
            if owner(session._path) == "baseline":
                raise MemoryError
            return BIND(session, x)

        monkeypatch.setattr(OrtSession, "bind", bind)
        left = run()
        assert "baseline cannot be timed" in str(left.fault)
        assert left.fault.exit_status == 1
        assert left.parent.info.status == "FAILED"
        assert set(statuses(left).values()) == {"FAILED"}
        assert left.runs["int8"].data.metrics["accuracy/top1"] > 0

    def test_without_a_figure_of_the_baseline_nothing_is_scored_and_timings_are_kept(
        self, run, monkeypatch
    ):
        def fresh(path, *_):
            if owner(path) == "baseline":
                raise NetzipError(f"{path}: {KILLED}")
            return Figures(FRESH)

        monkeypatch.setattr(process, "fresh_process", fresh)
        left = run("score.size=ram")
        assert "baseline: the score needs size/ram_bytes, which is absent" in str(left.fault)
        assert left.runs["int8"].data.metrics["speed/latency_ms"] > 0
        assert left.runs["int8"].data.metrics["size/ram_bytes"] == 4e6

    def test_where_no_candidate_can_be_timed_the_baseline_is_finished(self, run, monkeypatch):
        def bind(session, x):
            if owner(session._path) in NAMES:
                raise NetzipError("the lamp is out")
            return BIND(session, x)

        monkeypatch.setattr(OrtSession, "bind", bind)
        left = run()
        assert "every candidate failed" in str(left.fault)
        assert statuses(left) == dict.fromkeys(NAMES, "FAILED") | {"baseline": "FINISHED"}


class TestMeasure:
    @pytest.fixture
    def files(self, tmp_path):
        """Three copies of one file, each in a folder of its own."""
        import torch

        source = tmp_path / "source.onnx"
        torch.onnx.export(
            torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten()).eval(),
            (torch.zeros(1, 3, 8, 8),),
            source,
            dynamo=False,
            input_names=["images"],
            dynamic_axes={"images": {0: "n"}},
        )
        for name in ("one", "two", "three"):
            (tmp_path / name).mkdir()
            shutil.copy(source, tmp_path / name / "model.onnx")
        return {n: str(tmp_path / n / "model.onnx") for n in ("one", "two", "three")}

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_file_that_cannot_be_timed_does_not_stop_the_others(
        self, files, monkeypatch, no_fresh_process
    ):
        def bind(session, x):
            if owner(session._path) in broken:
                raise NetzipError("the lamp is out")
            return BIND(session, x)

        broken = ["two"]
        monkeypatch.setattr(OrtSession, "bind", bind)
        found = measure_files([files["two"], files["three"]], files["one"])
        first, second, third = measure_object(found)["models"]
        assert first["metrics"]["ratio/its"] == 1.0
        assert third["metrics"]["ratio/its"] > 0
        assert "ratio/its" not in second["metrics"]
        assert "the lamp is out" in second["error"]
        assert "error" not in third
        assert "two failed: cannot be timed: the lamp is out" in measure_text(found)

        broken.append("three")
        with pytest.raises(NetzipError, match=r"no model could be measured; two: .*lamp is out"):
            measure_files([files["two"], files["three"]], files["one"])


class TestPublishing:
    @pytest.mark.parametrize(
        ("module", "name", "piece", "there"),
        [
            (plots, "figures", "plots", {"comparison.csv", "report.html"}),
            (comparison, "report", "report.html", {"comparison.csv", "plots"}),
            (table, "comparison", "comparison.csv", {"report.html", "plots"}),
            (views, "overview", "views", {"comparison.csv", "report.html", "plots"}),
        ],
    )
    def test_a_piece_that_cannot_be_made_is_said_and_the_rest_is_there(
        self, run, monkeypatch, module, name, piece, there
    ):
        monkeypatch.setattr(module, name, broken)
        left = run()
        assert left.fault is None
        assert set(statuses(left).values()) == {left.parent.info.status} == {"FINISHED"}
        assert left.outcome.choice.best == left.parent.data.tags["netzip.best"] != ""
        files = {f.path for f in left.client.list_artifacts(left.parent.info.run_id)}
        assert there <= files
        assert piece not in files
        note = left.parent.data.tags["mlflow.note.content"]
        assert f"`{piece}`: RuntimeError: the ink is dry" in note
        assert any(f"{piece} cannot be made" in line for line in left.said)

    def test_candidates_are_finished_before_anything_is_published(self, run, monkeypatch):
        real, seen = comparison.publish, []

        def publish(work, made, *given):
            client = work.run.client
            seen.extend(client.get_run(c.run.id).info.status for c in made)
            return real(work, made, *given)

        monkeypatch.setattr(comparison, "publish", publish)
        run()
        assert seen == ["FINISHED"] * 4


def test_a_search_goes_on_where_its_progress_and_its_pictures_cannot_be_shown(
    searched, client, monkeypatch
):
    for module, name in (
        (search_note, "running"),
        (search_plots, "figures"),
        (search_notes, "importances"),
    ):
        monkeypatch.setattr(module, name, broken)
    found = searched("search.trials=2", short=True)
    parent = client.get_run(found.outcome.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["netzip.best"] == found.outcome.choice.best
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith(f"**Winner: {found.winner.name}**")
    for piece in ("plots/search", "importances"):
        assert f"`{piece}`: RuntimeError: the ink is dry" in note
    assert {run.info.status for run in searched.runs(found).values()} == {"FINISHED"}


def test_a_trial_is_scored_by_what_only_a_clock_tells_and_its_fault_is_its_own(
    searched, client, monkeypatch
):
    """On memory as the size; the second trial's fresh process is killed."""

    def fresh(path, *_):
        if owner(path) == "trial-1":
            raise NetzipError(f"{path}: {KILLED}")
        return Figures(FRESH)

    monkeypatch.setattr(process, "fresh_process", fresh)
    found = searched("search.trials=2", "score.size=ram", "score.max_drop_points=100", short=True)
    runs = searched.runs(found)
    assert runs["trial-1"].info.status == "FAILED"
    assert "status -9" in runs["trial-1"].data.tags["netzip.reason"]
    first = client.get_run(searched.study(found).trials[0].user_attrs["netzip.run_id"])
    assert first.info.status == "FINISHED"
    assert first.data.metrics["ratio/C"] == 1.0
    assert found.outcome.choice.best == "trial-0"
