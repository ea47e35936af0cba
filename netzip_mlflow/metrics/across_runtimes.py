"""The same files in further runtimes: whether they answer alike, and how long a call takes there.

None of these figures scores. `ratio_its` compares two models in one runtime; `ratio_across`
compares two runtimes on one model, and no other figure does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netzip_mlflow import runtimes
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics import latency
from netzip_mlflow.statistics import Interval, bootstrap_median_ratio

if TYPE_CHECKING:
    from netzip_mlflow.metrics.family import Model
    from netzip_mlflow.recipe import MeasureSpec
    from netzip_mlflow.runtimes import Session

__all__ = ["NOT_TIMED", "SAMPLES", "Row", "rows"]

NOT_TIMED = "not timed: its times tell nothing of a device"
SAMPLES = 4  # that both runtimes answer: one that is slow must answer them too


@dataclass(frozen=True)
class Row:
    """One model in one runtime.

    Attributes:
        max_abs_diff: of the outputs, from those of the runtime that scores, over `SAMPLES` seeded
            random samples.
        latency_ms: of one sample, median over rounds.
        ratio_its: the baseline's time in this runtime / the model's in this runtime.
        ratio_across: the model's time in the runtime that scores / the model's in this runtime.
        noisy: the baseline against itself, in the runtime that scores, is outside the limits.
        absent: why figures are missing.
    """

    model: str
    runtime: str
    version: str
    max_abs_diff: float | None
    latency_ms: Interval | None
    ratio_its: Interval | None
    ratio_across: Interval | None
    noisy: bool
    absent: str

    def cells(self) -> dict[str, Any]:
        """The row by column: an interval takes three."""
        values: dict[str, Any] = {}
        for key, value in asdict(self).items():
            if key in ("latency_ms", "ratio_its", "ratio_across"):
                low, high = f"{key}_low", f"{key}_high"
                ends = value or {"value": None, "low": None, "high": None}
                values |= {key: ends["value"], low: ends["low"], high: ends["high"]}
            else:
                values[key] = value
        return values


@dataclass(frozen=True, eq=False)
class _Pair:
    """One model in one runtime: what it answers, and its call where it is timed."""

    model: str
    runtime: str
    version: str = ""
    max_abs_diff: float | None = None
    call: Callable[[], None] | None = None
    absent: str = ""

    @property
    def key(self) -> str:
        return f"{self.model} in {self.runtime}"


def rows(
    loaded: Sequence[Model],
    spec: MeasureSpec,
    seed: int,
    progress: Callable[[str, float], None] = lambda _what, _done: None,
) -> list[Row]:
    """Every model in every runtime of `spec`, timed in common rounds; none where there is one
    runtime only.

    Args:
        loaded: the baseline first.

    Raises:
        NetzipError: the baseline cannot be run by the runtime that scores.
    """
    first, *others = spec.runtimes
    if not others:
        return []
    pairs = []
    for number, (each, name) in enumerate(itertools.product(loaded, others)):
        progress(f"{each.name} in {name}", number / (len(loaded) * len(others)))
        pairs.append(_pair(each, name, spec.threads, seed))
    if not any(pair.call for pair in pairs):
        return [_row(pair, None, first, loaded[0].name, seed) for pair in pairs]
    sample = _samples(loaded[0], seed)[:1]
    scoring = [
        _Pair(each.name, first, _version(each.session), call=each.session.bind(sample))
        for each in loaded
    ]
    again = runtimes.find(first).load(
        loaded[0].path, threads=spec.threads, adapter=loaded[0].adapter
    )
    timed = latency.interleave(
        {pair.key: pair.call for pair in (*scoring, *pairs) if pair.call is not None},
        baseline=scoring[0].key,
        again=again.bind(sample),
        target=spec.latency.target,
        max_seconds=spec.latency.max_seconds,
        max_rounds=spec.latency.max_rounds,
        min_rounds=spec.latency.min_rounds,
        seed=seed,
    )
    return [_row(pair, timed, first, loaded[0].name, seed) for pair in (*scoring, *pairs)]


def _samples(loaded: Model, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((SAMPLES, *loaded.shape), dtype=np.float32)


def _version(session: Session) -> str:
    return str(session.describe()["version"])


def _pair(each: Model, name: str, threads: int, seed: int) -> _Pair:
    x = _samples(each, seed)
    try:
        runtime = runtimes.find(name)
        session = runtime.load(each.path, threads=threads, adapter=each.adapter)
        return _Pair(
            each.name,
            name,
            _version(session),
            _max_abs_diff(each.session.run(x), session.run(x)),
            session.bind(x[:1]) if runtime.timed else None,
            "" if runtime.timed else NOT_TIMED,
        )
    except NetzipError as error:
        return _Pair(each.name, name, absent=str(error))
    except Exception as error:  # noqa: BLE001 (a runtime may be anyone's code)
        return _Pair(each.name, name, absent=f"{type(error).__name__}: {error}")


def _max_abs_diff(scoring: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    shapes = [[value.shape for value in values] for values in (scoring, other)]
    if shapes[0] != shapes[1]:
        raise NetzipError(f"answers with {shapes[1]}, the runtime that scores with {shapes[0]}")
    if not all(np.isfinite(value).all() for value in (*scoring, *other)):
        raise NetzipError("an answer, here or in the runtime that scores, is not finite")
    return max(float(np.abs(a - b).max()) for a, b in zip(scoring, other, strict=True))


def _row(pair: _Pair, timed: latency.Latency | None, first: str, baseline: str, seed: int) -> Row:
    timings: Mapping[str, latency.Timing] = timed.timings if timed else {}
    faults = timed.faults if timed else {}
    timing = timings.get(pair.key)

    def over(model: str, runtime: str) -> Interval | None:
        before = timings.get(_Pair(model, runtime).key)
        if timing is None or before is None:
            return None
        return bootstrap_median_ratio(before.rounds_ms, timing.rounds_ms, seed=seed)

    return Row(
        model=pair.model,
        runtime=pair.runtime,
        version=pair.version,
        max_abs_diff=pair.max_abs_diff,
        latency_ms=timing.latency_ms if timing else None,
        ratio_its=over(baseline, pair.runtime),
        ratio_across=over(pair.model, first),
        noisy=timed is not None and timed.noisy,
        absent=pair.absent or faults.get(pair.key, ""),
    )
