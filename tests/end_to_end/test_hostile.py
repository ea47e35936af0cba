"""A thousand hostile inputs: no traceback, nothing that hangs, no run left RUNNING, the contract's
exit statuses, and with `--json` one object or nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNS = Path(__file__).parents[1] / "hostile_runs.py"


def faults(count: int, seed: int) -> str:
    """What was found, by kind; empty where all inputs ended well."""
    command = [sys.executable, str(RUNS), str(count), str(seed)]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return "" if ended.stdout.startswith(f"{count} inputs, 0 faults") else ended.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_tenth_ends_well() -> None:
    assert faults(100, seed=0) == ""


@pytest.mark.acceptance
@pytest.mark.timeout(6 * 3600)
def test_all_end_well() -> None:
    assert faults(1000, seed=1) == ""
