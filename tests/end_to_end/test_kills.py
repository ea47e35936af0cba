"""Commands that are killed at random moments, in every way; what the next command finds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import optuna
import psutil
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from netzip_mlflow.search import records

SEED, FOLDERS = 20, 10
TRIALS = 6
CANDIDATES = "candidates={half: [half], int8: [ptq], small: [{prune_l1: {ratio: 0.5}}, ptq]}"
DEPLOY = "{one_of: [{ptq: {bits: [8, 4]}}, {half: {}}]}"
SPACE = f"space: [{{prune_l1: {{ratio: {{low: 0.1, high: 0.9}}}}}}, {DEPLOY}]"
SEARCH = f"search={{trials: {TRIALS}, keep: 1, sampler: random, {SPACE}}}"
COMMANDS = {  # and how many lines each one says
    "compress": (["compress", "quick.yaml", "--set", CANDIDATES], 5),
    "search": (["search", "quick.yaml", "--study", "s", "--set", SEARCH], 14),
    "two": (["search", "quick.yaml", "--study", "s", "--set", SEARCH, "--workers", "2"], 14),
}
WAYS = {
    "kill -9": [signal.SIGKILL],
    "SIGTERM": [signal.SIGTERM],
    "Ctrl-C twice": [signal.SIGINT, signal.SIGINT],
    "SIGHUP": [signal.SIGHUP],
}
TABLE = "technique,top1,chats_g,disk_mb\nfp32,0.9,1,4\nint8,0.89,0.25,1\n"
NEXT = ("score", "table.csv", "--log")  # a quick command that leaves runs of its own
ACCURACY = "validation/accuracy/top1"


@dataclass(frozen=True)
class Kill:
    """Which command, in which way, so many seconds after so many lines."""

    command: str
    way: str
    lines: int
    seconds: float


def kills(folder: int) -> list[Kill]:
    """Of one folder; all ways are as frequent over all folders."""
    draw = np.random.default_rng(SEED)
    ways = draw.permutation(np.resize(list(WAYS), FOLDERS * len(COMMANDS)))
    every = [
        Kill(name, str(ways[n]), int(draw.integers(0, lines)), float(draw.uniform(0, 4)))
        for n, (name, (_, lines)) in enumerate(list(COMMANDS.items()) * FOLDERS)
    ]
    return every[folder * len(COMMANDS) :][: len(COMMANDS)]


@dataclass(frozen=True)
class Place:
    """Where commands are started and ended."""

    folder: object

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        with (self.folder.path / "said.txt").open("w") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "netzip_mlflow", *arguments],
                cwd=self.folder.path,
                env=self.folder.environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def said(self) -> str:
        return (self.folder.path / "said.txt").read_text()

    def whole(self, *arguments: str) -> None:
        assert self.start(*arguments).wait(600) == 0, self.said()[-3000:]

    def killed(self, kill: Kill) -> tuple[int, str]:
        """Start a command and end it: its process's number, and what it has said."""
        process = self.start(*COMMANDS[kill.command][0])
        while process.poll() is None and self.said().count("\n") < kill.lines:
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(kill.seconds)
        for number in WAYS[kill.way]:
            with contextlib.suppress(ProcessLookupError):
                # a supervisor tells the process that it started; a terminal tells all
                tell = os.kill if number == signal.SIGTERM else os.killpg
                tell(process.pid, number)
            time.sleep(0.1)  # two at the same time are one
        assert process.wait(120) not in {1, 2}, self.said()[-3000:]
        gone(process.pid)
        return process.pid, self.said()

    def left(self) -> list[str]:
        """Temporary folders, but the one in which timing takes turns: it is everybody's."""
        scratch = self.folder.path / "scratch"
        ours = [name for name in self.folder.scratch() if not (scratch / name / "turn").exists()]
        return [*ours, *(path.name for path in self.folder.path.glob(".netzip-new-*"))]

    def measured_by(self, pid: int) -> set[str]:
        """Names of the runs of a process that have their figures, in the store."""
        if not (self.folder.path / "mlflow.db").exists():
            return set()
        runs = [run for run in self.folder.runs() if ACCURACY in run.data.metrics]
        owner = {run: json.loads(run.data.tags["netzip.process"])["pid"] for run in runs}
        return {run.info.run_name for run in runs if owner[run] == pid}

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Of the study; none where it has not been made."""
        file = self.folder.path / "netzip-search.db"
        if not file.exists():
            return []
        url, closing = f"sqlite:///{file}", {"poolclass": sqlalchemy.NullPool}
        storage = optuna.storages.RDBStorage(url, closing)
        if "s" not in optuna.get_all_study_names(storage):
            return []
        study = optuna.load_study(study_name="s", storage=storage)
        return study.get_trials(deepcopy=False, states=states or None)


def gone(group: int) -> None:
    """Wait until a command's helpers have ended too."""
    for each in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(each.pid) == group and each.status() != psutil.STATUS_ZOMBIE:
                each.wait(60)


@pytest.fixture
def place(folder) -> Place:
    """A folder without a store: its first use may be killed too."""
    folder.environment["NETZIP_CACHE_MAX_BYTES"] = "0"
    (folder.path / "mlflow.db").unlink()
    (folder.path / "table.csv").write_text(TABLE)
    return Place(folder)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, marks=pytest.mark.acceptance if n else pytest.mark.slow)
        for n in range(FOLDERS)
    ],
)
def test_kills_lose_nothing_and_leave_nothing(place, number):
    """Three commands in one folder, each ended in its own way, each followed by a quick one; then a
    search that goes on to its end."""
    ended: dict[int, tuple[float | None, str]] = {}
    for kill in kills(number):
        pid, said = place.killed(kill)
        assert "Traceback" not in said, (kill, said[-3000:])
        announced = list(dict.fromkeys(re.findall(r" s  (half|int8|small): ", said)))
        expected = {"baseline", *announced[:-1]} if announced else set()
        if kill.command == "compress":  # a candidate is announced when the one before is measured
            assert expected <= place.measured_by(pid), kill
        counted = re.findall(rf"(\d+) of {TRIALS} trials", said)
        judged = place.trials(TrialState.COMPLETE)
        assert len(judged) >= max(map(int, counted), default=0), kill
        assert ended.items() <= (ended := by_number(judged)).items(), kill

        place.whole(*NEXT)
        states = [run.info.status for run in place.folder.runs()]
        assert "RUNNING" not in states, kill
        assert place.left() == [], kill
        print(f"{kill}: {len(said.splitlines())} lines, {len(judged)} trials")
    place.whole(*COMMANDS["search"][0])
    judged = place.trials(TrialState.COMPLETE)
    assert ended.items() <= by_number(judged).items()
    assert sorted(t.user_attrs["netzip.slot"] for t in judged) == list(range(TRIALS))
    runs = {run.info.run_id: run for run in place.folder.runs()}
    for trial in judged:
        run = runs[trial.user_attrs["netzip.run_id"]]
        assert run.info.status == "FINISHED"
        reason = trial.user_attrs.get(records.REASON, "")  # what was tried before is not measured
        assert ACCURACY in run.data.metrics or reason.startswith(records.SAME), reason
    assert "RUNNING" not in [run.info.status for run in runs.values()]
    assert place.left() == []


def by_number(trials: list[FrozenTrial]) -> dict[int, tuple[float | None, str]]:
    return {t.number: (t.value, t.user_attrs["netzip.run_id"]) for t in trials}
