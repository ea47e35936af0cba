"""The command line and its store: a server that is down, a run that MLflow started, compare."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

TABLE = "technique,top1,chats_g,disk_mb\nnone,50,4,2\nPTQ (INT8),50,2,1\n"


class TestServer:
    @pytest.fixture
    def closed(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

    @pytest.mark.parametrize(
        "arguments",
        [
            ["compress", "recipe.yaml"],
            ["train", "recipe.yaml"],
            ["measure", "model.onnx"],
            ["compare"],
            ["score", "table.csv", "--log"],
            ["export", "runs:/0", "folder"],
        ],
        ids=lambda arguments: arguments[0],
    )
    def test_that_is_down_is_said_before_any_work(self, netzip, recipe, place, closed, arguments):
        Path("table.csv").write_text("technique,top1,chats_g,disk_mb\na,50,4,2\nb,50,2,1\n")
        ended = netzip(*arguments, "--tracking-uri", closed)
        assert (ended.status, ended.out) == (2, "")
        assert f"the tracking server {closed} does not answer" in ended.err
        assert "--tracking-uri" in ended.err
        assert sorted(p.suffix for p in place.iterdir() if p.is_file()) == [
            ".csv",
            ".npz",
            ".yaml",
        ]

    def test_is_asked_before_code_of_the_users_is_imported(self, netzip, recipe, closed):
        """A technique of one's own usually imports torch at its top, which takes seconds."""
        Path("slow_start.py").write_text("open('imported', 'w').close()\ndef f(twin, c): ...\n")
        change = "candidates.own=['slow_start:f']"
        ended = netzip("compress", recipe, "--set", change, "--tracking-uri", closed)
        assert ended.status == 2
        assert "does not answer" in ended.err
        assert not Path("imported").exists()

    def test_a_store_whose_folder_is_missing(self, netzip, recipe, place):
        uri = f"sqlite:///{place}/no/folder/mlflow.db"
        ended = netzip("compress", recipe, "--tracking-uri", uri)
        assert ended.status == 2
        assert f"{place}/no/folder is not a writable folder" in ended.err


class TestExperiment:
    """An id that the store has not: before any work, and no experiment is made of it."""

    @pytest.mark.parametrize("command", [["compress", "recipe.yaml"], ["compare"]])
    def test_by_option(self, netzip, recipe, store, command):
        ended = netzip(*command, "--experiment", "999")
        assert (ended.status, ended.out) == (2, "")
        assert "--experiment: no experiment has the id '999'" in ended.err
        assert [e.name for e in store.search_experiments()] == ["Default"]

    @pytest.mark.parametrize("given", ["999", "signs"])
    def test_by_the_environment(self, netzip, recipe, store, monkeypatch, given):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", given)
        ended = netzip("compress", recipe)
        assert (ended.status, ended.out) == (2, "")
        assert f"MLFLOW_EXPERIMENT_ID: no experiment has the id '{given}'" in ended.err

    def test_an_id_names_its_experiment(self, netzip, store, place):
        (place / "t.csv").write_text(TABLE)
        number = store.create_experiment("signs")
        assert netzip("score", "t.csv", "--log", "--experiment", number).status == 0
        assert {run.info.experiment_id for run in store.all_runs()} == {number}
        assert len(store.search_experiments()) == 2


class TestUnderMlflowRun:
    def test_the_reason_is_left_on_the_run_that_was_started(
        self, netzip, recipe, store, monkeypatch
    ):
        run = store.create_run("0").info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", run)
        ended = netzip("compress", recipe, "--set", "train.epoch=3")
        assert ended.status == 2
        tags = store.get_run(run).data.tags
        assert "train.epoch: unknown key" in tags["netzip.reason"]
        assert "train.epoch: unknown key" in tags["mlflow.note.content"]

    def test_a_run_that_is_gone_does_not_hide_the_message(self, netzip, recipe, store, monkeypatch):
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        ended = netzip("compress", recipe, "--set", "train.epoch=3")
        assert ended.status == 2
        assert "train.epoch: unknown key" in ended.err

    def test_texts_that_an_entry_point_passes(self, netzip, recipe):
        """MLproject passes one text where the command line repeats an option, and empty ones."""
        ended = netzip(
            *("compress", "--recipe", recipe, "--only", "a, ruined", "--dry-run", "--json"),
            *("--set", "candidates.a=[half]; train.epochs=7;"),
        )
        steps = [step["step"] for step in ended.object["steps"]]
        assert any("7 epochs" in step for step in steps)
        assert [s.split(":")[0] for s in steps if s[:2] in {"a:", "ru"}] == ["ruined", "a"]
        ended = netzip("validate", "--recipe", recipe, "--set", "")
        assert ended.status == 0


class TestCompare:
    def test_nothing_to_compare_leaves_nothing(self, netzip, store):
        ended = netzip("compare")
        assert (ended.status, ended.out) == (2, "")
        assert "nothing to compare" in ended.err
        assert store.all_runs() == []

    def test_an_experiment_that_is_not_there(self, netzip, store):
        store.create_experiment("digits")
        ended = netzip("compare", "--experiment", "digit")
        assert (ended.status, ended.out) == (2, "")
        assert "did you mean 'digits'?" in ended.err
        assert {e.name for e in store.search_experiments()} == {"Default", "digits"}

    def test_for_machines(self, netzip, store, place, no_pictures):
        (place / "t.csv").write_text(TABLE)
        assert netzip("score", "t.csv", "--log", "--experiment", "tables").status == 0
        found = netzip("compare", "--experiment", "tables", "--json", "--quiet").object
        assert set(found) == {"run_id", "groups"}
        (group,) = found["groups"]
        assert set(group) == {"best", "feasible", "runs"}
        assert [run["name"] for run in group["runs"]] == ["none", "PTQ (INT8)"]
        text = netzip("compare", "--experiment", "tables", "--quiet").out
        assert "PTQ (INT8)" in text
