"""What a fresh process needs: time to load, time of the first inference, memory.

`fresh_process` starts one; it runs this module as a script, which prints one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netzip_mlflow import interpreter, runtimes
from netzip_mlflow.errors import InputError, NetzipError, Problem
from netzip_mlflow.metrics.family import Conditions, Figures, Model, Need
from netzip_mlflow.metrics.metric import Metric, data, milliseconds

if TYPE_CHECKING:
    from netzip_mlflow.recipe import MeasureSpec

__all__ = ["METRICS", "Memory", "Process", "fresh_process"]

METRICS = (
    Metric("size/load_ms", "Load time", "a fresh process opens the file", "less", "ms", 1.0,
           milliseconds),
    Metric("size/first_inference_ms", "First inference", "its first inference after that", "less",
           "ms", 1.0, milliseconds),
    Metric("size/ram_bytes", "Peak RAM of a fresh process",
           "peak resident set of a fresh process that loads and runs, less before", "less",
           "MB", 1e6, data, column="ram_gb", factor=1e9),
)  # fmt: skip

TIMEOUT_SECONDS = 300
_CALLS = 3  # inferences within the peak


class Process:
    """See `netzip_mlflow.metrics.family.Family`."""

    needs: Need = "alone"
    metrics = METRICS

    def measure(self, models: Sequence[Model], conditions: Conditions) -> list[Figures]:
        return [_figures(model.path, conditions.spec) for model in models]


def _figures(path: Path, spec: MeasureSpec) -> Figures:
    try:
        return fresh_process(path, spec.threads, spec.runtimes[0])
    except NetzipError as error:
        return Figures(absent={metric.key: str(error) for metric in METRICS})


def fresh_process(path: str | Path, threads: int, runtime: str = runtimes.DEFAULT) -> Figures:
    """Load a deployable in a new Python process by a runtime and run it on one blank sample.

    Returns:
        `size/load_ms` (opening the file: weights are unpacked then), `size/first_inference_ms`,
        `size/ram_bytes` (peak resident set while loading and running, less that before loading).

    Raises:
        InputError: when the file cannot be loaded there.
        NetzipError: when the process fails otherwise or takes longer than five minutes.
    """
    command = interpreter.command(__name__, str(Path(path).resolve()), str(threads), runtime)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NetzipError(f"{path}: a fresh process took over {TIMEOUT_SECONDS} s") from None
    except OSError as error:
        raise NetzipError(f"{path}: a fresh process cannot be started: {error}") from error
    try:  # the last line: a user's sitecustomize may have said something before
        answer = dict(json.loads((done.stdout.splitlines() or ["{}"])[-1]))
    except (ValueError, TypeError):
        answer = {}
    if "error" in answer:
        kind = InputError if done.returncode == InputError.exit_status else NetzipError
        raise kind(answer["error"])
    if done.returncode or not answer:
        last = (done.stderr.strip() or _killed_by(done.returncode)).splitlines()[-1]
        status = f"status {done.returncode}"
        raise NetzipError(f"{path}: a fresh process that runs it ended with {status}: {last}")
    return Figures(answer["metrics"], answer["reasons"])


def _killed_by(status: int) -> str:
    """What is known of a process that ended without a word."""
    if status == -getattr(signal, "SIGKILL", 0):
        return "killed, as the system does when memory runs out"
    return "no message"


class Memory:
    """Resident set of this process, in bytes.

    Linux: read from ``/proc/self/status``, the peak reset through ``/proc/self/clear_refs``.
    Elsewhere the kernel keeps one peak for the process's whole life: it tells the peak since
    `reset` only where it has grown since.
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc
        self._before = 0

    def reset(self) -> None:
        """Start anew: the peak counts from here, and the resident set is taken."""
        try:
            (self._proc / "clear_refs").write_text("5", encoding="utf-8")
        except OSError:
            self._life_peak: int | None = _life_peak()
        else:
            self._life_peak = None
        self._before = self._status("VmRSS") or _resident()

    def peak_above(self) -> tuple[int | None, str]:
        """Bytes of the peak since `reset` above the resident set then, or None and why."""
        if self._life_peak is None:
            peak = self._status("VmHWM")
        else:
            peak = _life_peak()
            if peak <= self._life_peak:
                return None, "this system cannot reset a process's peak, and it was not exceeded"
        return max(0, peak - self._before), ""

    def _status(self, field: str) -> int:
        try:
            lines = (self._proc / "status").read_text(encoding="utf-8").splitlines()
        except OSError:
            return 0
        found = (line.split() for line in lines if line.startswith(f"{field}:"))
        return next((int(words[1]) * 1024 for words in found), 0)


def _resident() -> int:
    import psutil

    return psutil.Process().memory_info().rss


def _life_peak() -> int:
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset  # type: ignore[attr-defined]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _measure(path: str, threads: int, runtime: str) -> dict[str, dict[str, float] | dict[str, str]]:
    import numpy as np

    from netzip_mlflow.runtimes.adapter import Adapter

    executor = runtimes.find(runtime)
    memory = Memory()
    memory.reset()
    started = time.perf_counter_ns()
    session = executor.load(path, threads=threads, adapter=Adapter())
    loaded = time.perf_counter_ns()
    sizes = [size for size in session.shape if size is not None]
    if len(sizes) < len(session.shape):
        what = f"the input's size is open: {session.shape}"
        raise InputError(Problem(path, what, "a fixed size of every axis but the batch"))
    x = np.zeros((1, *sizes), np.float32)
    before = time.perf_counter_ns()
    session.run(x)
    ran = time.perf_counter_ns()
    for _ in range(_CALLS - 1):
        session.run(x)
    peak, reason = memory.peak_above()
    metrics = {
        "size/load_ms": (loaded - started) / 1e6,
        "size/first_inference_ms": (ran - before) / 1e6,
    }
    if peak is None:
        return {"metrics": metrics, "reasons": {"size/ram_bytes": reason}}
    return {"metrics": {**metrics, "size/ram_bytes": peak}, "reasons": {}}


def _main(arguments: list[str], write: Callable[[str], object]) -> int:
    path, threads, runtime = arguments
    with contextlib.suppress(OSError):  # where memory runs out, this process goes, not its parent
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    try:
        write(json.dumps(_measure(path, int(threads), runtime)))
    except NetzipError as error:
        write(json.dumps({"error": str(error)}))
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:], sys.stdout.write))
