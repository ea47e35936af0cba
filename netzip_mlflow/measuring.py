"""A measurement: any deployables on this machine, all together with their baseline.

It is a loop over metric families, by what they need. The steps are separate, so that a stage can
log each as soon as it is done: `inspect` reads the file, `judge` runs the data through it,
`time_together` runs them all, `grade_all` is arithmetic. What cannot be done for one model is that
model's own `fault`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow import runtimes, scoring
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.metrics import across_runtimes
from netzip_mlflow.metrics.catalogue import FAMILIES
from netzip_mlflow.metrics.family import Conditions, Facts, Family, Figures, Model, Need, checked
from netzip_mlflow.metrics.row import ABSENT, Row, join_flags

if TYPE_CHECKING:
    from netzip_mlflow.recipe import ScoreSpec

__all__ = [
    "Measurement",
    "grade",
    "grade_all",
    "inspect",
    "judge",
    "measure_together",
    "needs_timing",
    "require_shape",
    "row",
    "run_elsewhere",
    "tags",
    "time_together",
]

NO_ENERGY = "no energy source is read: the E term is left out"
SPLITS = ("validation", "test")


@dataclass(eq=False)
class Measurement:
    """One deployable and its figures so far; `metrics` are keyed as they are logged.

    `absent` says by key why a figure is not among them, `fault` why it was not timed or graded
    though the others were.
    """

    model: Model
    metrics: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    per_class: tuple[Mapping[str, Any], ...] = ()
    flags: list[str] = field(default_factory=list)
    verdict: scoring.Verdict | None = None
    basis: scoring.Basis | None = None
    terms: str = ""
    elsewhere: Sequence[across_runtimes.Row] = ()
    fault: str = ""

    @property
    def name(self) -> str:
        """Of the model."""
        return self.model.name

    def copy(self) -> Measurement:
        """One whose figures, facts and flags may change without this one's."""
        return dataclasses.replace(
            self,
            metrics=dict(self.metrics),
            absent=dict(self.absent),
            facts=self.facts.copy(),
            flags=[*self.flags],
        )

    def add(self, figures: Figures, prefix: str = "") -> None:
        """What a family says."""
        self.metrics |= {prefix + key: value for key, value in figures.metrics.items()}
        self.absent |= {prefix + key: reason for key, reason in figures.absent.items()}
        self.facts |= figures.facts
        self.flags += [flag for flag in figures.flags if flag not in self.flags]
        self.fault = self.fault or figures.fault


def _families(need: Need, conditions: Conditions) -> list[tuple[Family, bool]]:
    """Families of a need, ours first, and whether they are this package's own."""
    ours = [(family, True) for family in FAMILIES]
    further = [(family, False) for family in conditions.families]
    return [(family, mine) for family, mine in ours + further if family.needs == need]


def _measure(
    need: Need, measured: Sequence[Measurement], conditions: Conditions, prefix: str = ""
) -> None:
    """Ask each family of a need for its figures of models; a fault of ours is the caller's."""
    for family, mine in _families(need, conditions):
        able = [each for each in measured if not each.fault]
        models = [each.model for each in able]
        if mine:
            figures = family.measure(models, conditions)
        else:
            figures = checked(family, models, conditions)
        for each, said in zip(able, figures, strict=True):
            each.add(said, prefix)


def inspect(name: str, path: Path, conditions: Conditions, adapter: Any = None) -> Measurement:
    """What the file itself tells: sizes, operations, bit widths, what the runtime makes of it.

    Args:
        adapter: how a foreign file wants its input (`runtimes.adapter.Adapter`).

    Raises:
        InputError: the file is corrupt, or holds a layer that cannot be counted.
    """
    runtime = runtimes.find(conditions.spec.runtimes[0])
    session = runtime.load(path, threads=conditions.spec.threads, adapter=adapter)
    shape = tuple(1 if d is None else d for d in session.shape)
    measured = Measurement(Model(name, path, runtime, session, shape, adapter))
    _measure("file", [measured], conditions)
    return measured


def judge(
    measured: Measurement,
    baseline: Measurement | None,
    conditions: Conditions,
    splits: Sequence[str] = SPLITS,
    *,
    at_least: float = 0.0,
) -> None:
    """Accuracy on each split, and against the baseline on the same samples.

    Figures of validation carry the prefix `validation/`; those of test carry none.

    Raises:
        OutOfReach: the primary accuracy on a split cannot be `at_least` that.
    """
    task, spec, model = conditions.task, conditions.spec, measured.model
    require_shape(measured, task.shape)
    for split in splits:
        prefix = "" if split == "test" else f"{split}/"
        evaluation = model.evaluations[split] = task.evaluate(
            model.session,
            split,
            batch=spec.evaluation_batch,
            progress=conditions.progress,
            final=split == "test",
            at_least=at_least,
        )
        measured.add(Figures(evaluation.metrics), prefix)
        measured.per_class = evaluation.per_class
        if baseline is not None:
            before = baseline.model.evaluations[split]
            comparison = task.compare(before, evaluation, conditions.seed)
            measured.add(Figures(comparison.metrics), prefix)
            measured.per_class = comparison.per_class
        beside = baseline.model if baseline is not None else None
        _measure(
            "data",
            [measured],
            dataclasses.replace(conditions, split=split, baseline=beside),
            prefix,
        )


def time_together(measured: Sequence[Measurement], conditions: Conditions) -> None:
    """Run all together (the first is the baseline), then what only one at a time can tell.

    Fills in latency with intervals, CPU utilisation over the latency window, throughput, load time
    and memory of a fresh process. One that cannot be run has a `fault`, and the others are timed
    without it.

    Raises:
        NetzipError: the baseline cannot be run: nothing can be compared with it.
    """
    _measure("together", measured, conditions)
    for number, each in enumerate(measured):
        if each.fault:
            continue
        conditions.progress(f"memory and throughput of {each.name}", number / len(measured))
        beside = measured[0].model if each is not measured[0] else None
        _measure("alone", [each], dataclasses.replace(conditions, baseline=beside))
    _measure("meter", measured, conditions)


def measure_together(
    measured: Sequence[Measurement],
    conditions: Conditions,
    basis: scoring.Basis,
    limits: scoring.Constraints,
) -> None:
    """All that can be known of inspected models, the baseline first: judged, timed, graded.

    Raises:
        NetzipError: as `time_together` and `grade_all`.
    """
    if conditions.task is not None:
        for each in measured:
            judge(each, measured[0] if each is not measured[0] else None, conditions)
    time_together(measured, conditions)
    grade_all(measured, basis, limits)


def run_elsewhere(measured: Sequence[Measurement], conditions: Conditions) -> None:
    """Fill in what the further runtimes make of the same files: nothing of it scores."""
    timed = [each for each in measured if not each.fault]
    models = [each.model for each in timed]
    rows = across_runtimes.rows(models, conditions.spec, conditions.seed, conditions.progress)
    for each in timed:
        each.elsewhere = [row for row in rows if row.model == each.name]


def require_shape(measured: Measurement, shape: tuple[int, ...]) -> None:
    """Raise unless the model takes images of a shape: only models of one task stand together.

    Raises:
        InputError: it takes another one.
    """
    if measured.model.shape != shape:
        raise InputError(
            f"{measured.model.path}: takes images of {measured.model.shape}; the data set, or the"
            f" baseline, has {shape} (channels, height, width)"
        )


def grade_all(
    measured: Sequence[Measurement], basis: scoring.Basis, limits: scoring.Constraints
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
            grade(each, first, basis, limits)
        except NetzipError as error:
            if each is first:
                raise
            each.fault = str(error)


def grade(
    measured: Measurement, baseline: Measurement, basis: scoring.Basis, limits: scoring.Constraints
) -> None:
    """Ratios, OCS and verdict of one model against the baseline, on every split that was judged.

    Without accuracy (no data was given) only the ratios that need none are filled in.

    Args:
        limits: what must be kept.

    Raises:
        NetzipError: a figure that the basis needs is absent, or allows no ratio.
    """
    evaluations = measured.model.evaluations
    names = (baseline.name, measured.name)
    for split in evaluations or ("test",):
        measured.metrics |= scoring.other_ratios(
            baseline.metrics, measured.metrics, basis, split=split, names=names
        )
    measured.facts["energy"] = NO_ENERGY
    if not evaluations:
        for ratio, key in (("ratio/S", basis.speed_key), ("ratio/C", basis.size_key)):
            before, after = baseline.metrics.get(key), measured.metrics.get(key)
            if before and after:
                measured.metrics[ratio] = before / after
        return
    _require((baseline, measured), basis)
    for split in evaluations:
        prefix = "" if split == "test" else f"{split}/"
        score = scoring.score(baseline.metrics, measured.metrics, basis, split=split, names=names)
        measured.metrics |= score.metrics()
        measured.basis, measured.terms = basis, score.terms
        if measured is baseline:
            measured.metrics[f"{prefix}score/feasible"] = 1.0
            continue
        verdict = scoring.verdict(baseline.metrics, measured.metrics, limits, split=split)
        measured.metrics[f"{prefix}score/feasible"] = float(verdict.feasible)
        if math.isfinite(verdict.violation):
            measured.metrics[f"{prefix}score/violation"] = verdict.violation
        if split == "test" or measured.verdict is None:
            measured.verdict = verdict


def needs_timing(spec: ScoreSpec) -> bool:
    """Whether the basis of the score is a figure of `time_together`."""
    return spec.speed == "latency" or spec.size in ("cpu", "ram")


def _require(measured: Sequence[Measurement], basis: scoring.Basis) -> None:
    for each, key in itertools.product(measured, (basis.speed_key, basis.size_key)):
        reason = each.absent.get(key)
        if reason is not None and key not in each.metrics:
            raise NetzipError(f"{each.name}: the score needs {key}, which is absent: {reason}")


def row(measured: Measurement, kind: str, *, chain: str = "", run_id: str = "") -> Row:
    """One row of a comparison."""
    verdict = measured.verdict
    return Row(
        name=measured.name,
        kind=kind,
        status="FAILED" if measured.fault else "FINISHED",
        error=measured.fault,
        verdict=verdict.grade if verdict else "",
        reasons=verdict.reasons if verdict else (),
        flags=tuple(measured.flags),
        accuracy=measured.basis.accuracy_key if measured.basis else "",
        metrics=measured.metrics,
        facts=measured.facts,
        absent=measured.absent,
        chain=chain,
        run_id=run_id,
    )


def tags(measured: Measurement, baseline: str, fingerprint: str) -> dict[str, str]:
    """The tags of a measured model's run; `baseline` is the id of the baseline's."""
    absent = {ABSENT + key: reason for key, reason in measured.absent.items()}
    described = {
        "netzip.baseline": baseline,
        "netzip.fingerprint": fingerprint,
        "netzip.flags": join_flags(measured.flags),
        "netzip.facts": json.dumps({**measured.facts, **absent}),
    }
    if measured.basis is not None:
        described |= {"netzip.basis": measured.basis.label(), "netzip.terms": measured.terms}
    if measured.verdict is not None:
        described["netzip.verdict"] = measured.verdict.grade
        described["netzip.reason"] = "\n".join(measured.verdict.reasons)
    return described
