"""Who leads a study: plans its trials, ends it, and measures the winners. Everyone else helps."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.processes import dead, me
from netzip_mlflow.search.outages import unanswered

if TYPE_CHECKING:
    import optuna

__all__ = ["Leader", "claim", "following", "leader", "leader_or_claim", "leading", "led", "resign"]

ATTRIBUTE = "netzip.leader"
SIGN_S, SILENT_S, POLL_S = 20.0, 120.0, 0.5
SETTLE_S = 1.0  # in which everyone who saw no leader has written their own name
LOOK_S = 2.0  # between looks of a helper
RETRY_S = 2.0  # after a sign of life that the database did not take


@dataclass(frozen=True)
class Leader:
    """The runs of the search and of its baseline, below and against which trials are made."""

    run: str
    baseline: str


def led(study: optuna.Study) -> bool:
    """Whether a process leads a study now, or has claimed it. A sign that is old, or to come, by
    this machine's clock may be another clock's: it is watched until it changes."""
    sign = study.user_attrs.get(ATTRIBUTE)
    if not sign or dead(sign["owner"]):
        return False
    if abs(time.time() - sign["seen"]) <= SILENT_S:
        return True
    end = time.monotonic() + 2 * SIGN_S
    while (later := study.user_attrs.get(ATTRIBUTE)) == sign:
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_S)
    return bool(later)


def leader(study: optuna.Study) -> Leader | None:
    """Who leads a study now; None where nobody does, or whoever did is gone. One that has no
    baseline yet is waited for."""
    while led(study):
        sign = study.user_attrs.get(ATTRIBUTE) or {}
        if sign.get("baseline"):
            return Leader(sign["run"], sign["baseline"])
        time.sleep(POLL_S)
    return None


def leader_or_claim(study: optuna.Study) -> Leader | None:
    """Who leads a study; None where this process is to, and has its name there until `leading`
    gives signs of life. Of several that begin at the same time the last one to write it leads."""
    while (known := leader(study)) is None:
        if claim(study):
            return None
    return known


def claim(study: optuna.Study) -> bool:
    """Write this process's name as the leader's; whether no other has done so after it, or before
    it where the database took its time: a leader writes its own again with its next sign."""
    begun = time.monotonic()
    _sign(study, "", "")
    late = time.monotonic() - begun > SETTLE_S
    time.sleep(2 * SIGN_S if late else SETTLE_S)
    return (study.user_attrs.get(ATTRIBUTE) or {}).get("owner") == me()


def resign(study: optuna.Study) -> None:
    """Nobody leads a study that this process has led, or has claimed."""
    study.set_user_attr(ATTRIBUTE, None)


def _sign(study: optuna.Study, run: str, baseline: str) -> None:
    signed = {"owner": me(), "seen": time.time(), "run": run, "baseline": baseline}
    study.set_user_attr(ATTRIBUTE, signed)


@contextlib.contextmanager
def leading(study: optuna.Study) -> Iterator[Callable[[str, str], None]]:
    """Lead a study while the block lasts; a thread gives signs of life, as soon as it can where the
    database does not take one. Gives what is to be called with both runs' ids when others may begin
    to help."""
    over, lock = threading.Event(), threading.Lock()
    runs = {"run": "", "baseline": ""}

    def sign(**known: str) -> None:
        with lock:
            runs.update(known)
            _sign(study, **runs)

    def live() -> None:
        wait = SIGN_S
        while not over.wait(wait):
            try:
                sign()
                wait = SIGN_S
            except unanswered():
                wait = RETRY_S

    sign()
    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield lambda run, baseline: sign(run=run, baseline=baseline)
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(*unanswered()):  # then its process or its silence says it
            resign(study)


@contextlib.contextmanager
def following(study: optuna.Study, stop: Callable[[], None]) -> Iterator[None]:
    """Help whoever leads a study while the block lasts; a thread calls `stop` when nobody does.

    Silence is told by this process's clock, which two machines need not share.

    Raises:
        NetzipError: at the end of the block, when the leader is gone without a word.
    """
    over, lost = threading.Event(), threading.Event()
    first = study.user_attrs.get(ATTRIBUTE) or {}

    def watch() -> None:
        last, since = first, time.monotonic()
        while not over.wait(LOOK_S):
            with contextlib.suppress(*unanswered()):
                sign = study.user_attrs.get(ATTRIBUTE)
                if sign != last:
                    last, since = sign, time.monotonic()
                silent = time.monotonic() - since > SILENT_S
                if sign and (silent or dead(sign["owner"]) or sign["owner"] != first.get("owner")):
                    lost.set()
                if not sign or lost.is_set():
                    stop()
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if lost.is_set():
        raise NetzipError(
            f"study {study.study_name!r}: the process that led it is gone; the trial at work waits "
            "again, and the same command goes on with the study"
        )
