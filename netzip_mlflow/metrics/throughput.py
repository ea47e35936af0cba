"""Samples per second at the recipe's batch sizes, one model after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from netzip_mlflow.metrics.family import Conditions, Figures, Model, Need
from netzip_mlflow.metrics.latency import FAULTS, timed
from netzip_mlflow.metrics.metric import Metric
from netzip_mlflow.metrics.speed import sample

__all__ = ["METRICS", "Throughput", "throughput"]

SECONDS = 0.3

METRICS = (Metric("speed/throughput_b<N>", "Throughput", "samples per second at batch N", "more"),)


class Throughput:
    """See `netzip_mlflow.metrics.family.Family`."""

    needs: Need = "alone"
    metrics = METRICS

    def measure(self, models: Sequence[Model], conditions: Conditions) -> list[Figures]:
        return [_figures(model, conditions) for model in models]


def _figures(model: Model, conditions: Conditions) -> Figures:
    image, metrics, absent = sample(model, conditions.seed), {}, {}
    for batch in conditions.spec.throughput:
        key = f"speed/throughput_b{batch}"
        try:  # a foreign file's batch may be fixed; many samples may need more memory than there is
            call = model.session.bind(np.repeat(image, batch, axis=0))
            metrics[key] = throughput(call, batch, SECONDS)
        except FAULTS as error:
            absent[key] = str(error)
    return Figures(metrics, absent)


def throughput(
    call: Callable[[], None],
    batch: int,
    seconds: float,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> float:
    """Samples per second of a call that is bound to `batch` samples: batch / median call time.

    Calls for about `seconds` after one call to warm up; three calls at least.
    """
    call()
    start = clock()
    durations: list[int] = []
    while len(durations) < 3 or clock() - start < seconds * 1e9:
        durations.append(timed(call, clock))
    return batch / (float(np.median(durations)) / 1e9)
