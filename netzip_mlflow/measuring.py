"""A measurement and its steps: any deployables on this machine, interleaved with their baseline.

The steps are separate, so that a stage can log each as soon as it is known: `inspect` reads the
file, `judge` runs the data through it, `clock` times all together, `grade` is arithmetic. What
`clock` and `grade_all` cannot do for one model is that model's own `fault`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netzip_mlflow import runtimes, scoring
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.metrics import across_runtimes, latency, operations, process, size
from netzip_mlflow.metrics.graph import read_model

if TYPE_CHECKING:
    from netzip_mlflow.metrics.operations import Layer
    from netzip_mlflow.recipe import MeasureSpec, ScoreSpec
    from netzip_mlflow.runtimes import Session
    from netzip_mlflow.tasks import Evaluation, Task

__all__ = [
    "Measurement",
    "clock",
    "grade",
    "grade_all",
    "inspect",
    "judge",
    "needs_clock",
    "require_shape",
    "row",
    "run_elsewhere",
    "tags",
]

THROUGHPUT_SECONDS = 0.3
UNTIMED = "cannot be timed"
UNTOLD = "the runtime does not say what it executes"
NO_ENERGY = "no energy source is read: the E term is left out"
Progress = Callable[[str, float], None]


@dataclass(eq=False)
class Measurement:
    """One deployable and what was found of it so far; `metrics` are keyed as they are logged.

    `facts` say under ``absent KEY`` why a figure is not among them, `fault` why it was not timed or
    graded though the others were.
    """

    name: str
    path: Path
    session: Session
    shape: tuple[int, ...]
    adapter: Any = None
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    layers: Sequence[Layer] = ()
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    per_class: tuple[Mapping[str, Any], ...] = ()
    flags: list[str] = field(default_factory=list)
    verdict: scoring.Verdict | None = None
    basis: scoring.Basis | None = None
    terms: str = ""
    elsewhere: Sequence[across_runtimes.Row] = ()
    fault: str = ""

    def apart(self) -> Measurement:
        """A copy whose figures, facts and flags may change without it."""
        own = {"metrics": dict(self.metrics), "facts": dict(self.facts), "flags": [*self.flags]}
        return dataclasses.replace(self, **own)


def inspect(name: str, path: Path, spec: MeasureSpec, adapter: Any = None) -> Measurement:
    """What the file itself tells: sizes, operations, bit widths, what the runtime makes of it.

    Args:
        adapter: how a foreign file wants its input (`runtimes.adapter.Adapter`).

    Raises:
        InputError: the file is corrupt, or holds a layer that cannot be counted.
    """
    runtime = runtimes.find(spec.runtimes[0])
    session = runtime.load(path, threads=spec.threads, adapter=adapter)
    layers = operations.layers(read_model(path))
    executed = runtime.executed(path)
    totals = operations.totals(layers)
    metrics = {f"speed/{key}": float(totals[key]) for key in ("macs", "ops", "chats", "mean_bits")}
    facts: dict[str, Any] = {}
    if executed is None:
        facts = {f"absent speed/{key}": UNTOLD for key in ("layers", "int8_layers")}
    else:
        metrics["speed/layers"] = float(executed.layers)
        metrics["speed/int8_layers"] = float(executed.int8_layers)
        facts = {"casts": executed.casts, "conversions": executed.conversions}
        facts["dynamic_nodes"] = executed.dynamic_nodes
    metrics |= {f"size/{key}": float(value) for key, value in size.sizes(path).items()}
    return Measurement(
        name=name,
        path=path,
        session=session,
        shape=tuple(1 if d is None else d for d in session.shape),
        adapter=adapter,
        metrics=metrics,
        facts=facts,
        layers=layers,
    )


def judge(
    measured: Measurement,
    baseline: Measurement | None,
    task: Task,
    splits: Sequence[str],
    spec: MeasureSpec,
    seed: int,
    progress: Progress,
    *,
    at_least: float = 0.0,
) -> None:
    """Accuracy on each split, and against the baseline on the same samples.

    Figures of validation carry the prefix `validation/`; those of test carry none.

    Raises:
        OutOfReach: the primary accuracy on a split cannot be `at_least` that.
    """
    require_shape(measured, task.shape)
    for split in splits:
        prefix = "" if split == "test" else f"{split}/"
        found = task.evaluate(
            measured.session,
            split,
            batch=spec.evaluation_batch,
            progress=progress,
            final=split == "test",
            at_least=at_least,
        )
        measured.evaluations[split] = found
        measured.metrics |= {prefix + key: value for key, value in found.metrics.items()}
        if baseline is None:
            continue
        change = task.compare(baseline.evaluations[split], found, seed)
        measured.metrics |= {prefix + key: value for key, value in change.metrics.items()}
        measured.per_class = change.per_class


def clock(
    measured: Sequence[Measurement], spec: MeasureSpec, seed: int, progress: Progress
) -> latency.Latency:
    """Time all together (the first is the baseline), then what only one at a time can tell.

    Fills in latency with intervals, CPU utilisation over the latency window, throughput, load time
    and memory of a fresh process. The A/A check's verdict is a flag of every model. One that cannot
    be run has a `fault`, and the others are timed without it.

    Raises:
        NetzipError: the baseline cannot be run: nothing can be compared with it.
    """
    first = measured[0]
    sample = np.random.default_rng(seed).random((1, *first.shape), dtype=np.float32)
    try:
        found = _interleaved(measured, sample, spec, seed, progress)
    except latency.FAULTS as error:
        raise NetzipError(f"{first.name} {UNTIMED}: {error}") from error
    for number, each in enumerate(measured):
        if each.name in found.faults:
            each.fault = f"{UNTIMED}: {found.faults[each.name]}"
        if each.fault:
            continue
        progress(f"memory and throughput of {each.name}", number / len(measured))
        each.metrics |= found.keys(each.name)
        if found.noisy:
            each.flags.append("noisy")
        _throughput(each, sample, spec)
        _fresh_process(each, spec)
    first.metrics |= {
        "speed/aa_ratio": found.aa.value,
        "speed/aa_ratio_low": found.aa.low,
        "speed/aa_ratio_high": found.aa.high,
    }
    return found


def _interleaved(
    measured: Sequence[Measurement],
    sample: np.ndarray,
    spec: MeasureSpec,
    seed: int,
    progress: Progress,
) -> latency.Latency:
    first, calls = measured[0], {}
    for each in measured:
        try:
            calls[each.name] = each.session.bind(sample)
        except latency.FAULTS as error:
            if each is first:
                raise
            each.fault = f"{UNTIMED}: {error}"
    again = runtimes.find(spec.runtimes[0]).load(
        first.path, threads=spec.threads, adapter=first.adapter
    )
    budget = spec.latency

    def report(rounds: int, half_width: float) -> None:
        done = min(1.0, budget.target / half_width) if half_width else 1.0
        progress(f"timing, round {rounds}, ratios known to {half_width:.1%}", done)

    return latency.interleave(
        calls,
        baseline=first.name,
        again=again.bind(sample),
        target=budget.target,
        max_seconds=budget.max_seconds,
        max_rounds=budget.max_rounds,
        min_rounds=budget.min_rounds,
        seed=seed,
        progress=report,
    )


def _throughput(measured: Measurement, sample: np.ndarray, spec: MeasureSpec) -> None:
    for batch in spec.throughput:
        key = f"speed/throughput_b{batch}"
        try:  # a foreign file's batch may be fixed; many samples may need more memory than there is
            call = measured.session.bind(np.repeat(sample, batch, axis=0))
            measured.metrics[key] = latency.throughput(call, batch, THROUGHPUT_SECONDS)
        except latency.FAULTS as error:
            measured.facts[f"absent {key}"] = str(error)


def _fresh_process(measured: Measurement, spec: MeasureSpec) -> None:
    try:
        fresh = process.fresh_process(measured.path, spec.threads, spec.runtimes[0])
    except NetzipError as error:
        fresh = process.FreshProcess({}, dict.fromkeys(process.KEYS, str(error)))
    measured.metrics |= fresh.metrics
    measured.facts |= {f"absent {key}": reason for key, reason in fresh.reasons.items()}


def run_elsewhere(
    measured: Sequence[Measurement], spec: MeasureSpec, seed: int, progress: Progress
) -> None:
    """Fill in what the further runtimes of `spec` make of the same files: nothing of it scores."""
    timed = [each for each in measured if not each.fault]
    rows = across_runtimes.rows(timed, spec, seed, progress)
    for each in timed:
        each.elsewhere = [row for row in rows if row.model == each.name]


def require_shape(measured: Measurement, shape: tuple[int, ...]) -> None:
    """Raise unless the model takes images of a shape: only models of one task stand together.

    Raises:
        InputError: it takes another one.
    """
    if measured.shape != shape:
        raise InputError(
            f"{measured.path}: takes images of {measured.shape}; the data set, or the baseline,"
            f" has {shape} (channels, height, width)"
        )


def grade_all(
    measured: Sequence[Measurement],
    spec: ScoreSpec,
    limits: scoring.Constraints | None = None,
) -> None:
    """`grade` each that has no fault against the first; one that cannot be graded has one then.

    Raises:
        NetzipError: the baseline itself cannot be graded, so nothing can.
    """
    first = measured[0]
    for each in measured:
        if each.fault:
            continue
        try:
            grade(each, first, spec, limits)
        except NetzipError as error:
            if each is first:
                raise
            each.fault = str(error)


def grade(
    measured: Measurement,
    baseline: Measurement,
    spec: ScoreSpec,
    limits: scoring.Constraints | None = None,
) -> None:
    """Ratios, OCS and verdict of one model against the baseline, on every split that was judged.

    Without accuracy (no data was given) only the ratios that need none are filled in.

    Args:
        limits: what must be kept; by default the drop that the score allows.

    Raises:
        NetzipError: a figure that the basis needs is absent, or allows no ratio.
    """
    limits = limits or scoring.Constraints.from_spec(spec)
    basis = scoring.Basis.from_spec(spec)
    names = (baseline.name, measured.name)
    own = measured is baseline
    for split in measured.evaluations or ("test",):
        prefix = "" if split == "test" else f"{split}/"
        measured.metrics |= scoring.other_ratios(
            baseline.metrics, measured.metrics, basis, split=split, names=names
        )
        if not measured.evaluations:
            break
        _require((baseline, measured), basis)
        score = scoring.score(baseline.metrics, measured.metrics, basis, split=split, names=names)
        measured.metrics |= score.metrics()
        measured.basis, measured.terms = basis, score.terms
        if own:
            measured.metrics[f"{prefix}score/feasible"] = 1.0
            continue
        verdict = scoring.verdict(baseline.metrics, measured.metrics, limits, split=split)
        measured.metrics[f"{prefix}score/feasible"] = float(verdict.feasible)
        if math.isfinite(verdict.violation):
            measured.metrics[f"{prefix}score/violation"] = verdict.violation
        if split == "test" or measured.verdict is None:
            measured.verdict = verdict
    if not measured.evaluations:
        for ratio, key in (("ratio/S", basis.speed_key), ("ratio/C", basis.size_key)):
            before, after = baseline.metrics.get(key), measured.metrics.get(key)
            if before and after:
                measured.metrics[ratio] = before / after
    measured.facts["energy"] = NO_ENERGY


def needs_clock(spec: ScoreSpec) -> bool:
    """Whether the basis of the score is a figure of `clock`."""
    return spec.speed == "latency" or spec.size in ("cpu", "ram")


def _require(measured: Sequence[Measurement], basis: scoring.Basis) -> None:
    for each, key in itertools.product(measured, (basis.speed_key, basis.size_key)):
        reason = each.facts.get(f"absent {key}")
        if reason is not None and key not in each.metrics:
            raise NetzipError(f"{each.name}: the score needs {key}, which is absent: {reason}")


def row(measured: Measurement, kind: str) -> dict[str, Any]:
    """One row of a comparison: metrics by key, facts, and the texts that `report` reads."""
    verdict = measured.verdict
    texts = {
        "name": measured.name,
        "kind": kind,
        "status": "FAILED" if measured.fault else "FINISHED",
        "error": measured.fault,
        "verdict": verdict.grade if verdict else "",
        "reasons": "\n".join(verdict.reasons) if verdict else "",
        "flags": ",".join(measured.flags),
    }
    return texts | measured.facts | measured.metrics


def tags(measured: Measurement, baseline: str, fingerprint: str) -> dict[str, str]:
    """The tags of a measured model's run; `baseline` is the id of the baseline's."""
    described = {
        "netzip.baseline": baseline,
        "netzip.fingerprint": fingerprint,
        "netzip.flags": ",".join(measured.flags),
        "netzip.facts": json.dumps(measured.facts),
    }
    if measured.basis is not None:
        described |= {"netzip.basis": measured.basis.label(), "netzip.terms": measured.terms}
    if measured.verdict is not None:
        described["netzip.verdict"] = measured.verdict.grade
        described["netzip.reason"] = "\n".join(measured.verdict.reasons)
    return described
