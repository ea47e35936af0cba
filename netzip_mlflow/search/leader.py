"""Who leads a study: plans its trials, ends it, and measures the winners. Everyone else helps."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netzip_mlflow.search.study import dead, me

if TYPE_CHECKING:
    import optuna

__all__ = ["Leader", "leader", "leading"]

ATTRIBUTE = "netzip.leader"
SIGN_S, SILENT_S = 20.0, 120.0


@dataclass(frozen=True)
class Leader:
    """The runs of the search and of its baseline, below and against which trials are made."""

    run: str
    baseline: str


def leader(study: optuna.Study) -> Leader | None:
    """Who leads a study now; None where nobody does, or whoever did is gone."""
    known = study.user_attrs.get(ATTRIBUTE)
    if not known or dead(known["owner"]) or time.time() - known["seen"] > SILENT_S:
        return None
    return Leader(known["run"], known["baseline"])


@contextlib.contextmanager
def leading(study: optuna.Study, run: str, baseline: str) -> Iterator[None]:
    """Lead a study while the block lasts; a thread gives signs of life."""
    over = threading.Event()

    def sign() -> None:
        while True:
            known = {"owner": me(), "run": run, "baseline": baseline, "seen": time.time()}
            study.set_user_attr(ATTRIBUTE, known)
            if over.wait(SIGN_S):
                return

    thread = threading.Thread(target=sign, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        study.set_user_attr(ATTRIBUTE, None)
