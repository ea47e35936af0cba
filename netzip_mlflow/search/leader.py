"""Who leads a study: plans its trials, ends it, and measures the winners. Everyone else helps."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netzip_mlflow.search.study import dead, me

if TYPE_CHECKING:
    import optuna

__all__ = ["Leader", "leader", "leader_or_claim", "leading"]

ATTRIBUTE = "netzip.leader"
SIGN_S, SILENT_S, POLL_S = 20.0, 120.0, 0.5
SETTLE_S = 1.0  # in which everyone who saw no leader has written their own name


@dataclass(frozen=True)
class Leader:
    """The runs of the search and of its baseline, below and against which trials are made."""

    run: str
    baseline: str


def leader(study: optuna.Study) -> Leader | None:
    """Who leads a study now; None where nobody does, or whoever did is gone. One that has no
    baseline yet is waited for."""
    while True:
        known = study.user_attrs.get(ATTRIBUTE)
        if not known or dead(known["owner"]) or time.time() - known["seen"] > SILENT_S:
            return None
        if known["baseline"]:
            return Leader(known["run"], known["baseline"])
        time.sleep(POLL_S)


def leader_or_claim(study: optuna.Study) -> Leader | None:
    """Who leads a study; None where this process is to, and has its name there until `leading`
    gives signs of life. Of several that begin at the same time the last one to write it leads."""
    while (known := leader(study)) is None:
        _sign(study, "", "")
        time.sleep(SETTLE_S)
        if study.user_attrs[ATTRIBUTE]["owner"] == me():
            return None
    return known


def _sign(study: optuna.Study, run: str, baseline: str) -> None:
    signed = {"owner": me(), "seen": time.time(), "run": run, "baseline": baseline}
    study.set_user_attr(ATTRIBUTE, signed)


@contextlib.contextmanager
def leading(study: optuna.Study) -> Iterator[Callable[[str, str], None]]:
    """Lead a study while the block lasts; a thread gives signs of life. Gives what is to be called
    with both runs' ids when others may begin to help."""
    over, lock = threading.Event(), threading.Lock()
    runs = {"run": "", "baseline": ""}

    def sign(**known: str) -> None:
        with lock:
            runs.update(known)
            _sign(study, **runs)

    def live() -> None:
        while not over.wait(SIGN_S):
            sign()

    sign()
    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield lambda run, baseline: sign(run=run, baseline=baseline)
    finally:
        over.set()
        thread.join()
        study.set_user_attr(ATTRIBUTE, None)
