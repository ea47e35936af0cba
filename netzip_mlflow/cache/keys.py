"""What the result of a technique hangs on, and the key that stands for it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

from netzip_mlflow.cache.sources import PACKAGE, package_digest, source_digest
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.factories import FACTORY_PATH, import_function
from netzip_mlflow.metrics import machine
from netzip_mlflow.signature import outputs_of

if TYPE_CHECKING:
    from netzip_mlflow.techniques import Context, Technique
    from netzip_mlflow.twin import Twin

__all__ = ["Uncacheable", "answer", "code", "digest", "ingredients"]

DISTRIBUTION = "netzip-mlflow"


class Uncacheable(NetzipError):
    """The result hangs on something that no key can hold; the message says on what."""


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 of the ingredients, first 32 hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def ingredients(technique: Technique, twin: Twin, context: Context) -> dict[str, Any]:
    """All that decides what `technique.apply(twin, context)` returns, as JSON.

    More than some techniques read (the teacher, the calibration split): a key that is too fine
    costs a computation, one that is too coarse gives a wrong network.

    Raises:
        Uncacheable: a network came as a plain module, a user's code has no file that determines
            it, or parameters are no JSON.
    """
    task, teacher = context.task, context.teacher
    parts = {
        "twin": _network(twin),
        "technique": _technique(technique),
        "task": code(type(task)),
        "train": context.train.digest,
        "calibration": context.calibration.digest,
        "validation": task.split("validation").digest,
        "teacher": None if teacher is None else _network(teacher),
        "seed": context.seed,
        "device": _device(context.device),
        "threads": context.threads,
        "machine": _machine(),
        "code": package_digest(),
        "versions": _versions(),
    }
    try:
        return json.loads(json.dumps(parts))
    except (TypeError, ValueError) as error:
        raise Uncacheable(f"a parameter cannot be written as JSON: {error}") from None


def _network(twin: Twin) -> dict[str, Any]:
    if twin.architecture is None:
        raise Uncacheable("the network came as a plain module, which cannot be rebuilt")
    architecture = twin.architecture
    factory = architecture.kind != "name"
    source = code(import_function(architecture.name, "architecture")) if factory else None
    # two structures may carry the same weights, where a user's technique changed a layer's settings
    return {"digest": twin.digest(), "answer": answer(twin), "source": source}


def answer(twin: Twin) -> str:
    """SHA-256 of the network's structure, and of its outputs for two seeded random samples.

    Raises:
        Uncacheable: it cannot be run.
    """
    import torch

    images = torch.rand(2, *twin.input.shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            answers = outputs_of(twin.network()(images), twin.outputs.names)
        values = b"".join(each.contiguous().numpy().tobytes() for each in answers)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise Uncacheable(f"the network cannot be run: {error}") from error
    return hashlib.sha256(repr(twin.model).encode() + values).hexdigest()[:16]


def _technique(technique: Technique) -> dict[str, Any]:
    function = getattr(type(technique), "function", type(technique))  # a user's, wrapped
    parameters = dataclasses.asdict(technique)  # type: ignore[call-overload]
    named = {  # such as distil's student: its text decides the result too
        key: code(import_function(value, key))
        for key, value in parameters.items()
        if isinstance(value, str) and FACTORY_PATH.fullmatch(value)
    }
    parts = {"code": code(function), "label": technique.label(), "parameters": parameters}
    return parts | ({"named": named} if named else {})


def code(function: Any) -> list[str]:
    """A class or function by name, with the digest of its source where that is not ours.

    Raises:
        Uncacheable: no file determines it.
    """
    name = getattr(function, "__qualname__", repr(function))
    path = f"{function.__module__}:{name}"
    if function.__module__.partition(".")[0] == PACKAGE:
        return [path]
    source = source_digest(function)
    if source is None:
        raise Uncacheable(
            f"{path} has no file whose text determines it (defined in a function or by hand, or"
            " changed since it was imported)"
        )
    return [path, source]


def _device(name: str) -> list[str | None]:
    if not name.startswith("cuda"):
        return [name]
    import torch

    return [name, torch.cuda.get_device_name(name), torch.version.cuda]


@functools.cache
def _machine() -> dict[str, Any]:
    """What decides how arithmetic rounds."""
    import torch

    fingerprint = machine.fingerprint({})
    capability = torch.backends.cpu.get_cpu_capability()
    return {k: fingerprint[k] for k in ("cpu", "instruction_sets")} | {"torch": capability}


@functools.cache
def _versions() -> dict[str, str | None]:
    """Of Python, this package and all that it depends on."""
    names = [re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text in _requirements()]
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in (DISTRIBUTION, *sorted(set(names))):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # an extra's, or a checkout that was never installed
            versions[name] = None
    return versions


def _requirements() -> list[str]:
    try:
        return requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return ["torch", "numpy"]
