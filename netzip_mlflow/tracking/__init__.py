"""The border to MLflow: runs, models, artifacts, views. Nobody else speaks to it.

`Tracker` opens the store, `Tracker.parent` is a run that always ends, every write is a `Write`:
plain values, which wait in an `Outbox` while the store is away, and lie in a folder for
`netzip resend` where it stays away. mlflow is imported inside functions: `check_reachable`
must answer before anything heavy is loaded.
"""

from __future__ import annotations

from netzip_mlflow.tracking.reachable import check_reachable, tracking_uri
from netzip_mlflow.tracking.runs import Run, Tracker
from netzip_mlflow.tracking.signals import (
    Killed,
    asked_on_sigint,
    ended_by_signals,
    ending,
    stopped,
)

__all__ = [
    "Killed",
    "Run",
    "Tracker",
    "asked_on_sigint",
    "check_reachable",
    "ended_by_signals",
    "ending",
    "stopped",
    "tracking_uri",
]
