"""Help, word for word, and how little is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = (
    *("compress", "train", "search", "measure", "compare", "score"),
    *("validate", "init", "list", "doctor", "export", "resend"),
)


class TestHelp:
    def test_of_the_whole(self, netzip, golden):
        ended = netzip("--help")
        assert ended.status == 0
        golden("help.txt", ended.out)
        for command in COMMANDS:
            assert f"  {command} " in ended.out

    @pytest.mark.parametrize("command", COMMANDS)
    def test_of_each_command(self, netzip, golden, command):
        ended = netzip(command, "--help")
        assert ended.status == 0
        golden(f"help-{command}.txt", ended.out)

    @pytest.mark.parametrize(
        "arguments",
        [["--help"], ["compress", "--help"], ["list", "techniques"], ["validate", "recipe.yaml"]],
        ids=" ".join,
    )
    def test_nothing_heavy_is_imported(self, save, arguments):
        save(model={"name": "resnet8"}, data={"name": "digits", "test": 0.2})
        script = """
import sys
from netzip_mlflow import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as ended:
    heavy = ("torch", "torchvision", "mlflow", "pandas", "matplotlib", "sklearn", "scipy")
    loaded = [name for name in heavy if name in sys.modules]
    sys.exit(f"{ended.code} {loaded}")
"""
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
        )
        assert done.stderr.strip() == "0 []"

    def test_python_m_is_the_same(self, place):
        done = subprocess.run(
            [sys.executable, "-m", "netzip_mlflow", "validate", "none.yaml"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("netzip: none.yaml: no such file")
