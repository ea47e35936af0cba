"""What ends a trial before its training."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from netzip_mlflow import scoring, techniques
from netzip_mlflow.stages.search.objective import Trials

PLAIN = [{"ptq": {}}]
TRAINS = [{"qat": {"bits": 4, "epochs": 2}}, *PLAIN]
MIB = 2**20


def interval(key: str, value: float, low: float, high: float) -> dict[str, float]:
    return {key: value, f"{key}_low": low, f"{key}_high": high}


def timed(ratio: tuple[float, float, float], ms: tuple[float, float, float]) -> dict[str, float]:
    return interval("ratio/its", *ratio) | interval("speed/latency_ms", *ms)


def trials(speeds: dict[str, float], disk: float, **limits: float) -> Trials:
    """With a baseline of 4 MiB and 5 ms; every untrained chain has this size and these speeds."""
    metrics = {"size/disk_bytes": 4 * MIB, "speed/latency_ms": 5.0}
    origin = SimpleNamespace(measured=SimpleNamespace(metrics=metrics))
    made = Trials(None, origin, *(None,) * 2, scoring.Constraints(1.0, **limits), None, None, 0.0)
    known = SimpleNamespace(sizes=lambda _: {"size/disk_bytes": disk}, speeds=lambda _: speeds)
    made.__dict__["untrained"] = known
    return made


SLOW = timed((1.5, 1.4, 1.6), (3.3, 3.1, 3.6))


@pytest.mark.parametrize(
    ("speeds", "disk", "limits", "reason"),
    [
        ({}, 2 * MIB, {}, ""),
        ({}, 1.01 * MIB, {"max_disk_mib": 1.0}, "max_disk_mib 1, but its file has 1,059,062 bytes"),
        ({}, 1.001 * MIB, {"max_disk_mib": 1.0}, ""),  # some bytes hang on the weights' values
        (SLOW, MIB, {"min_speedup": 2.0}, "min_speedup 2, but it has 1.500 [1.400, 1.600]"),
        (SLOW, MIB, {"min_speedup": 1.55}, ""),  # its interval holds the limit
        (SLOW, MIB, {"max_latency_ms": 3.0}, "max_latency_ms 3, but it has 3.300 [3.100, 3.600]"),
        (SLOW, MIB, {"max_latency_ms": 3.2}, ""),
        ({}, MIB, {"min_speedup": 2.0}, ""),  # the timing was noisy
        (SLOW, MIB, {"max_disk_mib": 2.0, "max_latency_ms": 4.0, "min_speedup": 1.2}, ""),
    ],
)
def test_only_what_breaks_a_limit_for_certain_is_not_trained(speeds, disk, limits, reason):
    stop = trials(speeds, disk, **limits).hindrance(techniques.chain(TRAINS))
    assert str(stop or "") == (f"stopped before its training: {reason}" if reason else "")


def test_what_is_known_is_told():
    stop = trials(SLOW, MIB, max_disk_mib=2.0, min_speedup=2.0).hindrance(techniques.chain(TRAINS))
    assert stop is not None
    assert stop.known == {"size/disk_bytes": MIB, **SLOW}


def test_what_does_not_train_is_judged_whole():
    held = trials(SLOW, 3 * MIB, max_disk_mib=1.0, min_speedup=math.inf)
    assert held.hindrance(techniques.chain(PLAIN)) is None
    assert held.hindrance(techniques.chain(TRAINS)) is not None
