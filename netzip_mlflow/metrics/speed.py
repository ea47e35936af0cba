"""Latency of all models together, beside their baseline: the interleaved rounds of `latency`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics.family import Conditions, Facts, Figures, Model, Need
from netzip_mlflow.metrics.latency import FAULTS, Latency, interleave
from netzip_mlflow.metrics.metric import Metric, milliseconds

__all__ = ["METRICS", "UNTIMED", "Speed", "sample"]

UNTIMED = "cannot be timed"

METRICS = (
    Metric("speed/latency_ms", "Latency of one sample", "median over interleaved rounds, batch 1",
           "less", "ms", 1.0, milliseconds, interval=True, header="Latency", column="latency_ms"),
    Metric("speed/latency_ms_p95", "Latency, p95", "95th percentile over all calls, ms", "less",
           "ms", 1.0, milliseconds),
    Metric("speed/rounds", "Rounds", "interleaved rounds that were timed"),
    Metric("speed/aa_ratio", "Baseline against itself",
           "the baseline against itself in two sessions, must contain 1", interval=True),
    Metric("size/cpu_percent", "CPU utilisation",
           "user + system time / wall time / cores, over the latency window", "less", "%",
           column="cpu_percent"),
)  # fmt: skip


class Speed:
    """See `netzip_mlflow.metrics.family.Family`."""

    needs: Need = "together"
    metrics = METRICS

    def measure(self, models: Sequence[Model], conditions: Conditions) -> list[Figures]:
        """The A/A check's verdict is a flag of every model.

        Raises:
            NetzipError: the baseline cannot be run: nothing can be compared with it.
        """
        first = models[0]
        faults: dict[str, str] = {}
        try:
            rounds = _rounds(models, conditions, faults)
        except FAULTS as error:
            raise NetzipError(f"{first.name} {UNTIMED}: {error}") from error
        faults |= rounds.faults
        flags = ("noisy",) if rounds.noisy else ()
        figures = [
            Figures(fault=f"{UNTIMED}: {faults[model.name]}")
            if model.name in faults
            else Figures(rounds.keys(model.name), flags=flags)
            for model in models
        ]
        check = {
            "speed/aa_ratio": rounds.aa.value,
            "speed/aa_ratio_low": rounds.aa.low,
            "speed/aa_ratio_high": rounds.aa.high,
        }
        facts = Facts(stopped=rounds.stopped, noisy=list(rounds.reasons))
        figures[0] = Figures({**figures[0].metrics, **check}, flags=flags, facts=facts)
        return figures


def _rounds(models: Sequence[Model], conditions: Conditions, faults: dict[str, str]) -> Latency:
    """Time those that can be bound; why another cannot is one of the `faults`."""
    first, calls = models[0], {}
    budget, image = conditions.spec.latency, sample(models[0], conditions.seed)
    for model in models:
        try:
            calls[model.name] = model.session.bind(image)
        except FAULTS as error:
            if model is first:
                raise
            faults[model.name] = str(error)
    again = first.runtime.load(first.path, threads=conditions.spec.threads, adapter=first.adapter)

    def report(rounds: int, half_width: float) -> None:
        done = min(1.0, budget.target / half_width) if half_width else 1.0
        conditions.progress(f"timing, round {rounds}, ratios known to {half_width:.1%}", done)

    return interleave(
        calls,
        baseline=first.name,
        again=again.bind(image),
        target=budget.target,
        max_seconds=budget.max_seconds,
        max_rounds=budget.max_rounds,
        min_rounds=budget.min_rounds,
        seed=conditions.seed,
        progress=report,
    )


def sample(model: Model, seed: int) -> np.ndarray:
    """One image of noise, float32 (1, C, H, W)."""
    return np.random.default_rng(seed).random((1, *model.shape), dtype=np.float32)
