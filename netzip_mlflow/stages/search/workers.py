"""More processes on one machine for one study: each works as the same command elsewhere would."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netzip_mlflow import interpreter
from netzip_mlflow.tracking import ending

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runs.job import Job

__all__ = ["Crew", "crew"]

STORAGE = "NETZIP_STORAGE"  # the variable that stands for --storage
SAID = "netzip: "  # before a line of a command that is --quiet
PATIENCE_S = 20.0  # for a worker that was told to end


@dataclass(frozen=True)
class Crew:
    """The processes beside this one."""

    processes: Sequence[subprocess.Popen[bytes]]

    leader_works = True

    def at_work(self) -> bool:
        """Whether any has not ended yet."""
        return any(process.poll() is None for process in self.processes)


@contextlib.contextmanager
def crew(
    work: Job, recipe: Recipe, workers: int, study: str, storage: str, seconds: float
) -> Iterator[Crew]:
    """`workers` processes in all, this one included, each with its share of the cores.

    Args:
        seconds: after which they begin no trial.
    """
    if workers == 1:
        yield Crew(())
        return
    file = work.folder / "search.yaml"
    file.write_text(recipe.to_yaml(secrets=True), encoding="utf-8")
    command = interpreter.command("netzip_mlflow", "search", str(file), "--quiet")
    command += ["--study", study]
    command += [] if work.options.experiment is None else ["--experiment", work.options.experiment]
    command += [] if work.options.cache else ["--no-cache"]
    command += [] if math.isinf(seconds) else ["--timeout", f"{max(seconds, 0.1):.1f}s"]
    own = {k: v for k, v in os.environ.items() if k != "MLFLOW_RUN_ID"}  # that is this process's
    # addresses may hold passwords, and everybody on a machine can read its command lines
    own |= {STORAGE: storage, "MLFLOW_TRACKING_URI": work.options.tracking_uri}
    shares = _shares(workers)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _pinned(0, shares[0]):
            for share in shares[1:]:
                log = (work.folder / f"worker-{len(processes) + 1}.log").open("wb")
                with log:
                    made = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=own,
                    )
                processes.append(made)
                with _pinned(made.pid, share, back=False):
                    pass
            yield Crew(tuple(processes))
    finally:
        with ending():
            _end(processes)
            _pass_on(work)


def _shares(workers: int) -> list[set[int]]:
    """The cores of each process: disjoint as far as there are enough of them."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [set(cores[n % max(len(cores), 1) :: workers]) for n in range(workers)]


@contextlib.contextmanager
def _pinned(process: int, cores: set[int], *, back: bool = True) -> Iterator[None]:
    """A process (0: this one) on some cores; the number of its threads follows from it."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(process)
    os.sched_setaffinity(process, cores)
    try:
        yield
    finally:
        if back:
            os.sched_setaffinity(process, before)


def _pass_on(work: Job) -> None:
    """What workers said that nobody may miss: their logs go with the folder."""
    for log in sorted(work.folder.glob("worker-*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(SAID) and not line.startswith(f"{SAID}ended by SIG"):
                work.options.warn(f"{log.stem}: {line.removeprefix(SAID)}")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
