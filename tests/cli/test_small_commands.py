"""validate, init, list, doctor, and command lines that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = str(Path(__file__).parents[2] / "recipes" / "digits.yaml")


class TestSmallCommands:
    def test_validate(self, netzip, recipe):
        ended = netzip("validate", recipe)
        assert ended.status == 0
        assert ended.out.startswith("stripes: valid, 1 candidate, digest ")

    def test_init_then_validate(self, netzip, place):
        ended = netzip("init")
        assert ended.status == 0
        assert "netzip validate recipe.yaml" in ended.out
        assert netzip("validate", "recipe.yaml").status == 0

    def test_init_twice(self, netzip, place):
        Path("mine.yaml").write_text("mine")
        ended = netzip("init", "mine.yaml")
        assert (ended.status, ended.out) == (2, "")
        assert "mine.yaml: exists already" in ended.err
        assert Path("mine.yaml").read_text() == "mine"

    def test_init_where_nothing_can_be_written(self, netzip, place):
        Path("file").write_text("")
        ended = netzip("init", "file/recipe.yaml")
        assert ended.status == 2
        assert "file/recipe.yaml: cannot be written" in ended.err

    @pytest.mark.parametrize("what", ["techniques", "models", "data", "metrics"])
    def test_list(self, netzip, what):
        text, found = netzip("list", what), netzip("list", what, "--json").object
        assert text.status == 0
        assert [line.split()[0] for line in text.out.splitlines()] == list(found)

    def test_list_of_something_else(self, netzip):
        ended = netzip("list", "metric")
        assert (ended.status, ended.out) == (2, "")
        assert "did you mean 'metrics'?" in ended.err

    def test_doctor(self, netzip, place):
        text, found = netzip("doctor"), netzip("doctor", "--json").object
        assert text.status == 0
        for key, value in found.items():
            assert f"{key:<22} {value}" in text.out
        assert found["tracking store"].endswith("/mlflow.db (usable)")
        assert list(place.iterdir()) == [], "it only looks"

    @pytest.mark.parametrize("command", [["doctor"], ["validate", RECIPE]], ids=lambda c: c[0])
    def test_where_the_current_folder_was_removed(self, tmp_path, command):
        """In a process of its own: the folder is one that the tests need."""
        gone = tmp_path / "gone"
        gone.mkdir()
        script = (
            "import os, sys; os.rmdir(os.getcwd())\n"
            "import runpy; sys.argv[0] = 'netzip'\n"
            "runpy.run_module('netzip_mlflow', run_name='__main__', alter_sys=True)"
        )
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        done = subprocess.run(
            [sys.executable, "-c", script, *command],
            cwd=gone,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == 2
        assert "current folder was removed" in done.stderr

    @pytest.mark.parametrize(
        "arguments",
        [["compres"], ["compress", "--epochs", "3"], ["score"], ["compress", "--seed", "x"]],
        ids=" ".join,
    )
    def test_a_command_line_that_is_none(self, netzip, place, arguments):
        ended = netzip(*arguments)
        assert (ended.status, ended.out) == (2, "")
        assert "netzip" in ended.err

    def test_nothing_at_all_is_a_call_for_help(self, netzip, place):
        ended = netzip()
        assert "compress" in ended.out + ended.err


class TestResend:
    def test_a_folder_without_anything_to_send(self, netzip, place):
        ended = netzip("resend", place)
        assert (ended.status, ended.out) == (2, "")
        assert "unsent.json" in ended.err
