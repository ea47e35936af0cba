"""Signals in the middle of a candidate."""

from __future__ import annotations

import os
import pty
import signal
import sys

import pytest

pytestmark = pytest.mark.slow
HOLD = ("--set", "candidates={half: [half], held: ['plugs:hold']}")


@pytest.fixture(autouse=True)
def heard():
    """Whoever started the tests may ignore SIGHUP, as `nohup` does; a command would inherit it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def held(folder, until, kill):
    """`netzip compress`, in the middle of its second candidate."""
    process = folder.netzip("compress", "quick.yaml", "--json", *HOLD)
    try:
        until(
            lambda: (folder.path / "holding").exists() or process.poll() is not None,
            "the candidate is being made",
        )
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        kill(process)
        for stream in (process.stdout, process.stderr):
            stream.close()


@pytest.mark.parametrize(
    ("numbers", "endings"),
    [
        ([signal.SIGTERM], {143: "ended by SIGTERM"}),
        ([signal.SIGINT], {130: "interrupted"}),
        ([signal.SIGHUP], {129: "ended by SIGHUP"}),
        ([signal.SIGINT] * 2, {130: "interrupted"}),
        # two threads of the process may take one each: the system does not say which comes first
        ([signal.SIGINT, signal.SIGTERM], {130: "interrupted", 143: "ended by SIGTERM"}),
    ],
    ids=["SIGTERM", "Ctrl-C", "SIGHUP", "Ctrl-C twice", "Ctrl-C and SIGTERM"],
)
def test_a_stop_ends_every_run_as_killed(folder, held, numbers, endings):
    before = folder.states()
    assert {before[name] for name in ("quick", "baseline", "held")} == {"RUNNING"}
    for number in numbers:
        held.send_signal(number)
    out, err = held.communicate(timeout=240)
    assert held.returncode in endings, err
    assert out == ""
    assert f"netzip: {endings[held.returncode]}\n" in err
    assert "Traceback" not in err
    assert set(folder.states().values()) == {"KILLED"}
    found = {run.info.run_name: run for run in folder.runs()}
    for run in found.values():
        shown = "Ctrl-C" if held.returncode == 130 else signal.Signals(held.returncode - 128).name
        assert run.data.tags["netzip.reason"] == f"stopped by {shown}"
    assert folder.scratch() == [], "its work folder is gone"

    # what was measured before it is in the store
    for name in ("baseline", "half"):
        metrics = found[name].data.metrics
        assert {"accuracy/top1", "speed/chats", "size/disk_bytes"} <= set(metrics)
        assert found[name].outputs.model_outputs, "its model is logged"
    assert found["held"].data.metrics == {}


def test_a_terminal_that_is_closed(folder, until):
    """Progress is shown there: nothing can be written any more, and every run ends all the same."""
    pid, terminal = pty.fork()
    if pid == 0:  # it leads a session whose terminal this is
        os.chdir(folder.path)
        command = [sys.executable, "-m", "netzip_mlflow", "compress", "quick.yaml", *HOLD]
        os.execve(command[0], command, folder.environment)  # noqa: S606
    until((folder.path / "holding").exists, "the candidate is being made")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert set(folder.states().values()) == {"KILLED"}
    assert os.waitstatus_to_exitcode(status) == 129
    assert folder.scratch() == []
