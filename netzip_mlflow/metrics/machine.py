"""What figures were measured on: results with different fingerprints never share a ratio."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from netzip_mlflow import runtimes
from netzip_mlflow.metrics.latency import cores

__all__ = ["EnergySource", "digest", "energy_sources", "fingerprint"]

# What decides which kernels a runtime takes: x86 by /proc/cpuinfo's names, then ARM's.
INSTRUCTION_SETS = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)
PACKAGES = ("numpy", "onnx", *runtimes.PACKAGES)


class EnergySource(NamedTuple):
    """A way to read energy on this machine; `reason` says why it can or cannot be used."""

    name: str
    available: bool
    reason: str


def fingerprint(runtime: Mapping[str, Any], *, root: Path = Path("/")) -> dict[str, Any]:
    """The machine, the runtime and the packages that matter.

    Args:
        runtime: what a session's `describe` says: runtime, version, providers, threads.
        root: where the system's own files lie.

    Returns:
        `cpu`, `instruction_sets`, `cores` (that this process may use), `governor` (of the first
        core; None where the system does not say), `os`, `python`, `packages` (name -> version,
        None when not installed), and `runtime` as given.
    """
    fields = _cpuinfo(root)
    flags = set(fields.get("flags", fields.get("features", "")).split())
    return {
        "cpu": _cpu_name(fields, root),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
        "cores": cores(),
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "runtime": dict(runtime),
    }


def digest(fingerprint: Mapping[str, Any]) -> str:
    """SHA-256 of a fingerprint, first 12 hex digits."""
    text = json.dumps(fingerprint, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def energy_sources(*, root: Path = Path("/")) -> list[EnergySource]:
    """Meters of this machine, whether each could be read now. Measures nothing."""
    return [_rapl(root), _nvml()]


def _rapl(root: Path) -> EnergySource:
    counters = sorted((root / "sys/class/powercap").glob("*rapl*/energy_uj"))
    if not counters:
        return EnergySource("rapl", False, "no RAPL counter under /sys/class/powercap")
    for counter in counters:
        try:
            int(counter.read_text(encoding="utf-8"))
        except PermissionError:
            reason = f"no permission to read /{counter.relative_to(root)}"
            return EnergySource("rapl", False, reason)
        except (OSError, ValueError) as error:
            reason = f"/{counter.relative_to(root)} cannot be read: {error}"
            return EnergySource("rapl", False, reason)
    return EnergySource("rapl", True, f"{len(counters)} counters can be read")


def _nvml() -> EnergySource:
    if importlib.util.find_spec("pynvml") is None:
        return EnergySource("nvml", False, "the package nvidia-ml-py is not installed")
    import pynvml  # pyright: ignore[reportMissingImports]  (optional)

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return EnergySource("nvml", False, f"NVML does not start: {error}")
    try:
        count = pynvml.nvmlDeviceGetCount()
        if not count:
            return EnergySource("nvml", False, "NVML finds no GPU")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError as error:
        return EnergySource("nvml", False, f"the GPU does not tell its energy: {error}")
    finally:
        pynvml.nvmlShutdown()
    return EnergySource("nvml", True, f"{count} GPU(s) tell their energy")


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first core's fields of /proc/cpuinfo, lower case."""
    fields: dict[str, str] = {}
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _cpu_name(fields: Mapping[str, str], root: Path) -> str:
    """x86 names itself in cpuinfo; an ARM board does in its device tree."""
    board = _text(root / "proc/device-tree/model")
    name = fields.get("model name") or fields.get("hardware") or ""
    if board:
        name = f"{name} ({board})" if name else board
    return name or platform.processor() or platform.machine()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
