"""`netzip list` and `netzip doctor`: what can be named, and what this machine can measure."""

from __future__ import annotations

import importlib.util
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from netzip_mlflow import data, models, runtimes, techniques
from netzip_mlflow.databases import without_password
from netzip_mlflow.errors import InputError, Problem, TrackingUnavailable, did_you_mean
from netzip_mlflow.metrics import catalogue, machine
from netzip_mlflow.tracking.reachable import check_reachable

__all__ = ["examine", "listing"]

LISTS = {
    "techniques": techniques.names,
    "models": models.names,
    "data": data.names,
    "runtimes": runtimes.names,
    "metrics": catalogue.listing,
}
FAST_INT8 = ("avx_vnni", "avx512_vnni", "amx_int8", "i8mm", "asimddp")


def listing(what: str) -> dict[str, str]:
    """Names and one-line descriptions.

    Raises:
        InputError: there is no such list.
    """
    if what not in LISTS:
        hint = did_you_mean(what, LISTS)
        raise InputError(Problem("list", f"{what!r} is no list", ", ".join(LISTS), hint))
    return LISTS[what]()


def examine(uri: str) -> dict[str, str]:
    """This machine, the packages, the store, and which energy sources there are."""
    fingerprint = machine.fingerprint({})
    fast = [name for name in FAST_INT8 if name in fingerprint["instruction_sets"]]
    int8 = ", ".join(fast) or "none: int8 runs, without instructions made for it"
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "os": fingerprint["os"],
        "cpu": fingerprint["cpu"],
        "cores": fingerprint["cores"],
        "governor": fingerprint["governor"] or "not known",
        "int8 instructions": int8,
    }
    packages = ("netzip-mlflow", *runtimes.PACKAGES, "onnx", "torch", "torchvision", "mlflow")
    for package in packages:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    facts["mlflow"] = facts["mlflow"] if importlib.util.find_spec("mlflow") else "not installed"
    facts["tracking store"] = _store(uri)
    for source in machine.energy_sources():
        facts[f"energy: {source.name}"] = f"{'yes' if source.available else 'no'}: {source.reason}"
    return {key: str(value) for key, value in facts.items()}


def _store(uri: str) -> str:
    try:
        check_reachable(uri)
    except TrackingUnavailable as error:
        return f"not usable: {error}"
    return f"{without_password(uri)} (usable)"
