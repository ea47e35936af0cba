"""A comparison as it comes from a compress run: ResNet-20 on CIFAR-10, rounded figures."""

from __future__ import annotations

import pandas as pd
import pytest

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
