"""SIGTERM and Ctrl-C in the middle of a candidate."""

from __future__ import annotations

import signal

import pytest

pytestmark = pytest.mark.slow
HOLD = ("--set", "candidates={half: [half], held: ['plugs:hold']}")


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
    ("number", "status", "says"),
    [(signal.SIGTERM, 143, "ended by SIGTERM"), (signal.SIGINT, 130, "interrupted")],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_stop_ends_every_run_as_killed(folder, held, number, status, says):
    before = folder.states()
    assert {before[name] for name in ("quick", "baseline", "held")} == {"RUNNING"}
    held.send_signal(number)
    out, err = held.communicate(timeout=60)
    assert held.returncode == status
    assert out == ""
    assert f"netzip: {says}\n" in err
    assert "Traceback" not in err
    assert set(folder.states().values()) == {"KILLED"}
    found = {run.info.run_name: run for run in folder.runs()}
    for run in found.values():
        assert run.data.tags["netzip.reason"].startswith("stopped by ")
    assert folder.scratch() == [], "its work folder is gone"

    # what was measured before it is in the store
    for name in ("baseline", "half"):
        metrics = found[name].data.metrics
        assert {"accuracy/top1", "speed/chats", "size/disk_bytes"} <= set(metrics)
        assert found[name].outputs.model_outputs, "its model is logged"
    assert found["held"].data.metrics == {}
