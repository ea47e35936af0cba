"""A comparison as it comes from a compress run: ResNet-20 on CIFAR-10, rounded figures."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace

import pandas as pd
import pytest

from netzip_mlflow.report.trials import Trials, read
from netzip_mlflow.scoring import Choice


def row(name, top1, drop, *, its, disk, ocs, s=4.0, validation=None, **more):
    """One model; its interval is 2 % wide, the drop's 0.3 points to each side."""
    validation = drop if validation is None else validation
    P, C = 1 - drop / 88.21, 1_086_712 / disk
    found = {
        "name": name,
        "kind": "candidate",
        "status": "FINISHED",
        "accuracy/top1": top1 / 100,
        "accuracy/drop_points": drop,
        "accuracy/drop_points_low": drop - 0.3,
        "accuracy/drop_points_high": drop + 0.3,
        "validation/accuracy/top1": (88.75 - validation) / 100,
        "validation/accuracy/drop_points": validation,
        "validation/accuracy/drop_points_low": validation - 0.5,
        "validation/accuracy/drop_points_high": validation + 0.5,
        "validation/ratio/P": 1 - validation / 88.75,
        "validation/score/ocs": ocs,
        "validation/score/feasible": float(validation <= 1),
        "score/feasible": float(drop <= 1),
        "score/ocs": ocs,
        "speed/latency_ms": 1.68 / its,
        "speed/latency_ms_low": 1.66 / its,
        "speed/latency_ms_high": 1.70 / its,
        "ratio/its": its,
        "ratio/its_low": its * 0.98,
        "ratio/its_high": its * 1.02,
        "ratio/P": P,
        "ratio/S": s,
        "ratio/C": C,
        "size/disk_bytes": float(disk),
        "speed/layers": 19,
    }
    return found | more


def baseline():
    found = row("baseline", 88.21, 0.0, its=1.0, disk=1_086_712, ocs=0.0, s=1.0, kind="baseline")
    return {
        key: value
        for key, value in found.items()
        if not key.endswith(("_low", "_high")) or key.startswith("speed/")
    }


@pytest.fixture(scope="session")
def pristine():
    """Rows out of order: the feasible are four_bit, int8, half; half_macs and dead are not."""
    return pd.DataFrame(
        [
            baseline(),
            row("half", 88.20, 0.01, its=1.006, disk=545_901, ocs=1.99, s=2.0, casts="42"),
            row("dead", 10.00, 78.21, its=1.0, disk=1_086_712, ocs=0.0, s=1.0, verdict="poor"),
            row("int8", 88.06, 0.15, its=2.236, disk=276_584, ocs=5.92, verdict="good", **{
                "speed/int8_layers": 19, "chain": "ptq(int8)",
                "reasons": "accuracy falls by 0.15 points\nlatency: faster",
            }),
            row("half_macs", 85.91, 2.30, its=2.47, disk=74_430, ocs=20.04, s=8.0, verdict="poor"),
            row("four_bit", 88.05, 0.16, its=2.231, disk=143_323, ocs=9.56, validation=-0.05,
                verdict="good"),
            {"name": "svd", "kind": "candidate", "status": "FAILED", "error": "rank 0 at layer1"},
        ]
    )  # fmt: skip


@pytest.fixture
def frame(pristine):
    return pristine.copy()


@pytest.fixture
def choice():
    return Choice("four_bit", None, "highest OCS on validation (9.560) of 3 feasible, 5 measured")


BEGUN = datetime(2026, 3, 1, 12, 0, 0)
VARIED = {
    "place 1": ["none", "prune_channels"],
    "place 2 (none, finetune, qat)": ["none", "finetune", "qat"],
    "prune_channels.ratio": [0.25, 0.5],
    "qat.lr": {"low": 0.001, "high": 0.1, "log": True},
    "ptq.bits": [8, 4, None],
}


def told(number, outcome, start, end, **more):
    """A row of a search; `start` and `end` in seconds since it was begun."""
    chosen = more.pop("chosen", {"place 1": "none", "ptq.bits": 8})
    return {
        "trial": number,
        "slot": number,
        "state": "COMPLETE",
        "outcome": outcome,
        "feasible": outcome == "feasible",
        "ocs": "",
        "reason": "",
        "candidate": "",
        "chain": f"chain-{number}",
        "run_id": f"run-{number}",
        "started": BEGUN + timedelta(seconds=start),
        "ended": None if end is None else BEGUN + timedelta(seconds=end),
        **more,
        **chosen,
    }


def judged(number, outcome, start, end, ocs, drop, S, C, chosen=None):
    """One that was judged: with its figures; the baseline has 80 % on validation."""
    figures = {
        "ocs": ocs,
        "drop": drop,
        "drop_low": drop - 0.4,
        "drop_high": drop + 0.4,
        "ratio/P": 1 - drop / 80,
        "ratio/S": S,
        "ratio/C": C,
        "violation.max_drop_points": drop - 1.0,
    }
    chosen = {"place 1": "none", "ptq.bits": 8} if chosen is None else chosen
    return told(number, outcome, start, end, chosen=chosen, **figures)


ROWS = [
    judged(0, "feasible", 0, 10, 5.9, 0.2, 4.0, 3.9),
    judged(1, "feasible", 10, 40, 9.5, 0.5, 4.0, 7.5, {"place 1": "none", "ptq.bits": 4}),
    judged(2, "infeasible", 40, 90, 20.0, 2.5, 8.0, 14.5, {
        "place 1": "prune_channels", "prune_channels.ratio": 0.5,
        "place 2 (none, finetune, qat)": "qat", "qat.lr": 0.01, "ptq.bits": 4,
    }),
    told(3, "skipped", 90, 92, reason="skipped: OCS at most 1.200, best so far 9.500"),
    told(4, "stopped", 92, 100, reason="stopped after epoch 1: 9.00 points below the baseline"),
    told(5, "lost", 100, 5000),
    # the search was ended here, and gone on with an hour later
    told(6, "failed", 3700, 3710, reason="rank 0\nat layer1"),
    judged(7, "feasible", 3705, 3730, 9.1, 0.9, 4.0, 7.2, {
        "place 1": "none", "place 2 (none, finetune, qat)": "qat", "qat.lr": 0.03, "ptq.bits": None,
    }),
    told(8, "same", 3730, 3731, reason="the same chain as trial 1"),
    told(9, "running", 3731, None),
]  # fmt: skip


@pytest.fixture
def written() -> SimpleNamespace:
    """What the searches below are read from: rows, what was varied, and how a row is made."""
    return SimpleNamespace(rows=ROWS, varied=VARIED, judged=judged)


@pytest.fixture
def trials() -> Trials:
    """A search of twelve: three feasible (the best is trial 1), one not, one each of the rest."""
    return read(ROWS, [1, 7, 0, 2], VARIED, 12)


@pytest.fixture
def hopeless() -> Trials:
    """Nothing feasible: trial 0 violates least."""
    rows = [
        judged(0, "infeasible", 0, 10, 5.0, 2.0, 4.0, 4.0),
        judged(1, "infeasible", 10, 20, 7.0, 40.0, 4.0, 8.0),
    ]
    return read(rows, [0, 1], VARIED, 2)


@pytest.fixture
def single() -> Trials:
    """One trial and no more."""
    return read(ROWS[:1], [0], VARIED, 1)
