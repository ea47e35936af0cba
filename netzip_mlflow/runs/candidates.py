"""A candidate on its way: chain, twin, deployable, measurements, and the run that tells of them."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netzip_mlflow import measuring, runtimes
from netzip_mlflow.cache import timed
from netzip_mlflow.deployable import MANIFEST, Deployable
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics import operations, thop
from netzip_mlflow.metrics.graph import read_model
from netzip_mlflow.metrics.row import Row
from netzip_mlflow.report import sheet, views
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.tracking.models import TWIN_DIGEST
from netzip_mlflow.twin import Twin

if TYPE_CHECKING:
    from netzip_mlflow.cache import StageCache
    from netzip_mlflow.measuring import Measurement
    from netzip_mlflow.metrics.family import Conditions
    from netzip_mlflow.runs.job import Job
    from netzip_mlflow.scoring import Basis, Constraints
    from netzip_mlflow.tasks import Task
    from netzip_mlflow.techniques import Context, Technique
    from netzip_mlflow.tracking import Run

__all__ = [
    "Candidate",
    "chained",
    "fail",
    "finish",
    "folder",
    "give_up",
    "inspect_and_judge",
    "parameters",
    "row",
    "start",
    "store",
    "time_and_grade",
    "trains",
    "walk",
]

GOLDEN = 16


@dataclass(eq=False)
class Candidate:
    """One row of the comparison; `error` says why it is not a measured one."""

    name: str
    chain: str
    run: Run
    folder: Path
    twin: Twin | None = None
    file: Path | None = None
    measured: Measurement | None = None
    error: str = ""
    technique: Technique | None = None  # that is being applied
    last_training: bool = False  # whether no later one trains
    seconds: float | None = None  # that the chain's techniques take, in the cache or not
    lines: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def epoch(self, key: str, value: float, step: int) -> None:
        """A figure of training, as a metric by epoch and as a line."""
        self.run.log({key: value}, step=step)
        self.note(f"epoch {step}: {key} {value:.5f}")

    def note(self, line: str) -> None:
        """A line of the candidate's own log, with the seconds since it was begun."""
        self.lines.append(f"{time.monotonic() - self.started:8.2f} s  {line}")


def start(
    work: Job,
    name: str,
    chain: str,
    tags: Mapping[str, str] | None = None,
    kind: str = "candidate",
) -> Candidate:
    """A child run for a candidate or a trial, or for the baseline when it is so named."""
    kind = "baseline" if name == "baseline" else kind
    colour = {"mlflow.runColor": views.BASELINE_COLOUR} if kind == "baseline" else {}
    run = work.run.child(kind, name, {"netzip.chain": chain, **colour, **(tags or {})})
    return Candidate(name, chain, run, folder(work, name))


def folder(work: Job, name: str) -> Path:
    """Where a candidate's files lie: apart from the parent's, whatever it is called."""
    return work.folder / "candidates" / name


def walk(
    made: Candidate,
    chain: Sequence[Technique],
    origin: Twin,
    context: Context,
    cache: StageCache | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Deployable:
    """Apply a chain to the baseline's twin, sealed off from the test split.

    What `cache` knows of the chain's float techniques is read from there; the tag `netzip.cached`
    then says of which.

    Raises:
        NetzipError: as the techniques do.
    """
    cached: list[str] = []
    made.seconds = 0.0

    def step(number: int, twin: Twin) -> Twin | Deployable:
        technique = chain[number]
        made.note(f"{technique.label()}: {technique}")
        made.technique = technique
        made.last_training = not any(map(trains, chain[number + 1 :]))
        if cache is None:
            applied = timed(technique, twin, context)
        else:
            applied = cache.apply(technique, twin, context, made.note)
        made.seconds = (made.seconds or 0.0) + applied.seconds
        if applied.hit:
            cached.append(technique.label())
            line = f"{technique.label()}: from the cache, key {applied.key[:12]}"
            made.note(line)
            say(f"{made.name}: {line}")
            made.run.log(tags={"netzip.cached": "+".join(cached)})
        return applied.result

    made.twin, deployable = chained(len(chain), origin, context, step)
    return deployable


def chained(
    length: int, origin: Twin, context: Context, step: Callable[[int, Twin], Twin | Deployable]
) -> tuple[Twin, Deployable]:
    """The last twin of a chain, and what is deployed, sealed off from the test split.

    Args:
        length: number of techniques.
        step: applies the one of a number to a twin.
    """
    twin = origin
    with context.task.sealed():
        for number in range(length):
            result = step(number, twin)
            if not isinstance(result, Twin):
                return twin, result
            twin = result
        return twin, deploy(twin, context)


def trains(technique: Technique) -> bool:
    """Whether a technique passes over the training split."""
    return technique.training_epochs > 0


def store(made: Candidate, deployable: Deployable, task: Task) -> None:
    """Write what ships, the twin and golden answers, and log all three."""
    made.file = deployable.save(made.folder)
    _golden(made.file, task)
    made.run.model(made.folder, made.name)
    made.note(f"stored: {made.file.stat().st_size:,} bytes, digest {deployable.digest}")
    tags = {"netzip.model_digest": deployable.digest}
    if made.twin is not None and made.twin.architecture is not None:
        made.twin.save(made.folder / "twin")
        made.run.artifact(made.folder / "twin", "twin")
        tags[TWIN_DIGEST] = made.twin.digest()
    made.run.log(tags=tags)


def _golden(file: Path, task: Task) -> None:
    """Sixteen validation samples with the file's own answers: a check for whoever deploys it."""
    samples, targets = next(task.split("validation").batches(GOLDEN))
    session = runtimes.find().load(file)
    held: dict[str, Any] = dict(zip(session.outputs, session.run(samples), strict=True))
    held |= task.golden(targets)
    np.savez(file.parent / "golden.npz", images=samples, **held)


def inspect_and_judge(made: Candidate, baseline: Candidate | None, conditions: Conditions) -> None:
    """Everything that needs no clock, logged at once: a later fault does not lose it."""
    assert made.file is not None  # noqa: S101 (stored before)
    task = conditions.task
    made.measured = measured = measuring.inspect(made.name, made.file, conditions)
    measured.metrics["fidelity/export_max_abs_diff"] = float(_manifest(made)["float_deviation"])
    if made.seconds is not None:
        measured.metrics["compress/seconds"] = made.seconds
    conditions.progress(f"evaluating {made.name}", 0.0)
    measuring.judge(measured, baseline.measured if baseline else None, conditions)
    if made.twin is not None:
        _check_count(made, measured)
    _write_layers(made, measured)
    if measured.per_class:
        made.run.artifact(sheet.write(made.folder / "per_class.csv", measured.per_class))
    made.run.log(measured.metrics)
    for split, evaluation in measured.model.evaluations.items():
        accuracy = evaluation.metrics[f"accuracy/{task.primary}"]
        made.note(f"{split}: {task.primary} {accuracy:.4f} of {task.sizes[split]} samples")


def _manifest(made: Candidate) -> dict[str, Any]:
    return json.loads((made.folder / MANIFEST).read_text(encoding="utf-8"))


def _check_count(made: Candidate, found: Measurement) -> None:
    assert made.twin is not None  # noqa: S101 (the caller has looked)
    counted = thop.count(made.twin.network(), made.twin.input.shape)
    found.metrics["speed/macs_thop"] = float(counted.total)
    if counted.layers != found.metrics["speed/macs"]:
        found.flags.append("macs-differ")
        found.facts["macs"] = (
            f"thop counts {counted.layers:,} MACs in convolutions and linear layers, "
            f"the graph {found.metrics['speed/macs']:,.0f}"
        )


def _write_layers(made: Candidate, found: Measurement) -> None:
    layers = operations.layers(read_model(found.model.path))
    rows = [
        {
            "layer": known["name"],
            "op": layer.op,
            "macs": layer.macs,
            "bits": layer.bits,
            "weight_bits": layer.weight_bits,
            "activation_bits": layer.activation_bits,
            "weight_bytes": round(layer.weight_bytes, 2),
            "parameters": layer.parameters,
        }
        for layer, known in zip(layers, _manifest(made)["layers"], strict=True)
    ]
    made.run.artifact(sheet.write(made.folder / "layers.csv", rows))


def time_and_grade(
    work: Job,
    made: Sequence[Candidate],
    conditions: Conditions,
    basis: Basis,
    limits: Constraints,
) -> None:
    """Time all together, the baseline first, then score each; everything new is logged.

    A candidate that cannot be timed or scored fails alone.

    Raises:
        NetzipError: the baseline cannot be timed, or allows no ratio (its accuracy is zero).
    """
    measured = [c.measured for c in made if c.measured is not None]
    before = [set(each.metrics) for each in measured]
    measuring.time_together(measured, conditions)
    _, fingerprint = work.fingerprint(measured[0].model.session)
    try:
        measuring.grade_all(measured, basis, limits)
    finally:  # what was timed is kept, even where nothing can be graded
        for candidate, each, logged in zip(made, measured, before, strict=True):
            new = {k: v for k, v in each.metrics.items() if k not in logged}
            candidate.run.log(new, tags=measuring.tags(each, made[0].run.id, fingerprint))
    for candidate, each in zip(made, measured, strict=True):
        if each.fault:
            fail(candidate, NetzipError(each.fault))
            work.say(f"{candidate.name} failed: {candidate.error}")


def fail(made: Candidate, error: Exception) -> None:
    """One candidate's failure: said on its run, and the others go on."""
    known = isinstance(error, NetzipError)
    made.error = str(error) if known else f"{type(error).__name__}: {error}"
    made.measured = None
    made.note("".join(traceback.format_exception(error)))
    _write_log(made)
    made.run.end("FAILED", made.error)


def give_up(made: Candidate, reason: str) -> None:
    """Nobody waits for the candidate any more."""
    made.error = reason
    _write_log(made)
    made.run.end("KILLED", reason)


def finish(made: Candidate) -> None:
    """The candidate is complete."""
    _write_log(made)
    made.run.end("FINISHED")


def _write_log(made: Candidate) -> None:
    made.run.text("\n".join(made.lines) + "\n", "netzip.log")


def parameters(chain: Sequence[Technique]) -> Iterator[tuple[str, Any]]:
    """A chain's parameters as run params: `technique/1.finetune/epochs`, defaults too."""
    for position, technique in enumerate(chain):
        named = re.sub(r"[^\w. -]", "_", technique.name)[:100]
        where = f"technique/{position}.{named}"
        for key, value in dataclasses.asdict(technique).items():  # type: ignore[call-overload]
            yield f"{where}/{key}", value


def row(made: Candidate) -> Row:
    """One row of the comparison."""
    kind, chain, run_id = made.run.kind, made.chain, made.run.id
    if made.measured is not None:
        return measuring.row(made.measured, kind, chain=chain, run_id=run_id)
    return Row(made.name, kind, chain, "FAILED", error=made.error, run_id=run_id)
