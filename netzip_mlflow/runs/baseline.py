"""The baseline: taken from MLflow when the same inputs trained it before, else trained now."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow import folders, measuring, models, techniques, training
from netzip_mlflow.cache import keys
from netzip_mlflow.cache.sources import package_digest
from netzip_mlflow.deployable import file_digest
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.factories import import_function
from netzip_mlflow.recipe import locate
from netzip_mlflow.runs import candidates
from netzip_mlflow.signature import InputSpec
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.twin import Architecture, Twin

if TYPE_CHECKING:
    from netzip_mlflow.recipe import ModelSpec, Recipe
    from netzip_mlflow.runs.bench import Bench
    from netzip_mlflow.runs.candidates import Candidate
    from netzip_mlflow.runs.job import Job
    from netzip_mlflow.tasks import Task

__all__ = ["joined", "prepare", "ready"]


def ready(bench: Bench, network: Twin) -> Candidate:
    """The baseline with its run: twin and deployable, not yet measured.

    Args:
        network: as `prepare` gives it; what training starts from.

    Raises:
        NetzipError: training diverged, or the network cannot be exported.
    """
    work, recipe, task = bench.job, bench.recipe, bench.task
    digest = ""
    try:
        digest = training_digest(recipe, task, network)
    except keys.Uncacheable as error:
        if recipe.train is not None:
            work.say(f"baseline: trained, whether or not it was before: {error}")
    earlier = _earlier(work, digest, recipe.code()) if digest and recipe.train is not None else None
    tags = {"netzip.training_digest": digest} if digest else {}
    made = candidates.start(work, "baseline", "fp32", tags=tags)
    made.run.log(tags={"netzip.baseline": made.run.id})
    if earlier is not None:
        run_id, made.twin = earlier
        work.say(f"baseline: trained before (run {run_id}), timed again")
        made.run.log(tags={"netzip.reused_from": run_id})
    else:
        with task.sealed():
            made.twin = _trained(work, made, recipe, task, network)
    try:
        deployable = deploy(made.twin, Context.of(task, exports=bench.exports))
    except NetzipError as error:
        raise NetzipError(f"model: {error}") from error
    candidates.store(made, deployable, task)
    return made


def joined(bench: Bench, run_id: str) -> Candidate:
    """The baseline that another process has made, judged on validation alone.

    Raises:
        InputError: its run holds no model, or no twin.
    """
    from netzip_mlflow.tracking.models import stored_model

    work, recipe = bench.job, bench.recipe
    run = work.run.other("baseline", run_id)
    made = candidates.Candidate("baseline", "fp32", run, candidates.folder(work, "baseline"))
    made.folder.mkdir(parents=True)
    made.file = stored_model(run.client, run_id, made.folder)
    made.twin = _stored(work, run_id, recipe.code())
    conditions = dataclasses.replace(bench.conditions, families=())
    made.measured = measuring.inspect(made.name, made.file, conditions)
    measuring.judge(made.measured, None, conditions, ("validation",))
    bench.exports(made.twin)
    return made


def prepare(recipe: Recipe, task: Task) -> Twin:
    """The network of a recipe with the weights it starts from, as a twin.

    Raises:
        InputError: weights that do not fit, shapes that do not, a device that is not there.
    """
    if recipe.train is not None:
        training.choose_device(recipe.train.device)
    spec = recipe.model
    if spec.uri is not None:
        return _from_uri(spec.uri, task, recipe.code())
    kind, name = ("name", spec.name) if spec.name else ("factory", spec.factory or "")
    architecture = Architecture(kind, name, {**task.arguments, **spec.arguments})
    with training.seeded(recipe.seed):
        model = architecture.build(task.shape, task.outputs)
    if spec.weights == "pretrained":
        models.load_pretrained(model, name)
    elif spec.weights is not None:
        models.load_weights(model, locate(spec.weights, "model.weights"))
    mean, std = (spec.mean, spec.std) if spec.mean and spec.std else _statistics(task)
    given = InputSpec(task.shape, mean, std)
    return Twin(model.eval(), given, task.outputs, architecture, task.facts)


def training_digest(recipe: Recipe, task: Task, network: Twin) -> str:
    """What decides the trained baseline: data, the network that it starts from, training, seed and
    the code of all three; not where any of it lies.

    Raises:
        Uncacheable: the network is a user's, and no file determines it.
    """
    parts = {
        "task": keys.code(type(task)),
        "data": task.digest,
        "model": _start(recipe.model, network),
        "train": recipe.train.model_dump(mode="json") if recipe.train else None,
        "seed": recipe.seed,
        "code": package_digest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _start(spec: ModelSpec, network: Twin) -> dict[str, Any]:
    """The network that training starts from: a name of this package's with its weights, else by
    content, which a registry's alias, a user's function or torchvision may change."""
    if spec.name is not None and spec.weights != "pretrained":
        weights = file_digest(locate(spec.weights, "model.weights")) if spec.weights else None
        return spec.model_dump(mode="json", exclude={"allow"}) | {"weights": weights}
    made = network.architecture
    edited = sorted({edit.technique for edit in network.edits})
    users: list[Callable[..., Any]] = [techniques.find(name) for name in edited]
    if made is not None and made.kind == "factory":
        users.append(import_function(made.name, "model.factory"))
    return {"digest": network.digest(), "code": [keys.code(each) for each in users]}


def _earlier(work: Job, digest: str, allow: frozenset[str]) -> tuple[str, Twin] | None:
    """A baseline with that digest that can still be read: its run's id and its twin."""
    from netzip_mlflow.tracking.models import stored_baselines

    reasons = []
    for run_id in stored_baselines(work.run.client, work.run.experiment_id, digest):
        try:
            return run_id, _stored(work, run_id, allow)
        except InputError as error:
            reasons.append(str(error).splitlines()[0])
    if reasons:
        work.say(f"baseline: trained again: {reasons[0]}")
    return None


def _trained(work: Job, made: Candidate, recipe: Recipe, task: Task, twin: Twin) -> Twin:
    if recipe.train is None:
        work.say("baseline: weights as given, not trained")
        return twin
    work.say(f"baseline: training {recipe.train.epochs} epochs")
    fitted = training.fit(
        twin,
        task.split("train"),
        task,
        spec=recipe.train,
        seed=recipe.seed,
        device=training.choose_device(recipe.train.device),
        threads=recipe.train.threads,
        progress=work.progress,
        log=made.epoch,
    )
    made.run.log(params={"recipe/train/best_epoch": fitted.best})
    return fitted.twin


def _stored(work: Job, run_id: str, allow: frozenset[str]) -> Twin:
    """The twin of another run.

    Raises:
        InputError: it cannot be had, or is not what was stored.
    """
    from netzip_mlflow.tracking.models import stored_twin

    place = work.folder / "earlier" / run_id
    place.mkdir(parents=True)
    return _loaded(f"runs:/{run_id}", *stored_twin(work.run.client, run_id, place), allow)


def _loaded(uri: str, folder: Path, digest: str, allow: frozenset[str]) -> Twin:
    """A twin that was fetched.

    Raises:
        InputError: it cannot be read, or is not what was stored.
    """
    try:
        return Twin.load(folder, allow, digest)
    except InputError as error:
        problems = "; ".join(str(problem) for problem in error.problems)
        raise InputError(f"{uri}: its twin cannot be used: {problems}") from None


def _from_uri(uri: str, task: Task, allow: frozenset[str]) -> Twin:
    """The twin of a logged model.

    Args:
        allow: what it may import.

    Raises:
        InputError: there is none, or it does not fit the data.
    """
    from netzip_mlflow.tracking.models import twin_folder

    with folders.temporary() as folder:
        twin = _loaded(uri, *twin_folder(uri, folder), allow)
    differing = [
        f"{what}: {theirs} given, {ours} wanted"
        for what, theirs, ours in (
            ("input", twin.input.shape, task.shape),
            ("outputs", twin.outputs, task.outputs),
            *((key, twin.facts.get(key), value) for key, value in task.facts.items()),
        )
        if theirs != ours
    ]
    if differing:
        raise InputError(f"model.uri: {uri} does not fit the data: {'; '.join(differing)}")
    return twin


def _statistics(task: Task) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of the training split, to four decimals."""
    import numpy as np

    total, squares, count = 0.0, 0.0, 0
    for samples, _ in task.split("train").batches(256):
        others = (0, *range(2, samples.ndim))
        total += samples.sum(axis=others, dtype=np.float64)
        squares += (samples.astype(np.float64) ** 2).sum(axis=others)
        count += samples.size // samples.shape[1]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    std = np.where(std < 1e-3, 1.0, std)  # a constant channel carries nothing to scale
    return tuple(np.round(mean, 4).tolist()), tuple(np.round(std, 4).tolist())
