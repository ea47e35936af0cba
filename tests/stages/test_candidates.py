"""What a candidate's run is made of, in pieces."""

from __future__ import annotations

import pytest

from netzip_mlflow import techniques
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.runs import candidates
from netzip_mlflow.runs.job import job, open_tracker


@pytest.fixture
def at_work(workplace):
    with job("compress", "digits", workplace, open_tracker(workplace)) as found:
        yield found


def test_a_chains_parameters_are_numbered_and_defaults_are_written_out():
    chain = techniques.chain([{"prune_l1": {"ratio": 0.4}}, {"ptq": {}}])
    found = dict(candidates.parameters(chain))
    assert found["technique/0.prune_l1/ratio"] == 0.4
    assert found["technique/1.ptq/calibration"] == "minmax"
    assert all(key.startswith(("technique/0.prune_l1/", "technique/1.ptq/")) for key in found)


def test_the_baseline_has_its_kind_and_colour(at_work):
    baseline = candidates.start(at_work, "baseline", "fp32")
    other = candidates.start(at_work, "small", "half(fp16)", tags={"netzip.baseline": "b"})
    tags = [at_work.tracker.client.get_run(c.run.id).data.tags for c in (baseline, other)]
    assert [t["netzip.kind"] for t in tags] == ["baseline", "candidate"]
    assert "mlflow.runColor" in tags[0]
    assert "mlflow.runColor" not in tags[1]
    assert tags[1]["netzip.baseline"] == "b"
    assert tags[1]["netzip.chain"] == "half(fp16)"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NetzipError("the network cannot be exported"), "the network cannot be exported"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_a_failure_is_a_row_too(at_work, error, reason):
    made = candidates.start(at_work, "small", "half(fp16)")
    candidates.fail(made, error)
    run = at_work.tracker.client.get_run(made.run.id)
    assert run.info.status == "FAILED"
    assert run.data.tags["netzip.reason"] == reason
    row = candidates.row(made)
    assert (row.name, row.status, row.error) == ("small", "FAILED", reason)
    assert row.run_id == made.run.id


def test_no_technique_gets_the_test_split(at_work, task, twin, context):
    """Whatever a technique tries, inside a walk the final evaluation has not begun."""
    from dataclasses import dataclass

    from netzip_mlflow.errors import SplitSealed

    @dataclass(frozen=True)
    class Peeking:
        def label(self) -> str:
            return "peeking"

        def apply(self, twin, context):
            context.task.split("test", final=True)
            return twin

    made = candidates.start(at_work, "small", "peeking")
    with pytest.raises(SplitSealed):
        candidates.walk(made, [Peeking()], twin, context)
    assert len(task.split("test", final=True)) > 0, "the seal is off again"
