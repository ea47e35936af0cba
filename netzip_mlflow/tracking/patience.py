"""Reads that wait for a store which is away for a while, as writes do in the outbox."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from netzip_mlflow.errors import TrackingLost
from netzip_mlflow.tracking import faults

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["HURRIED_S", "PATIENCE_S", "patient", "patiently"]

# A server that restarts or a token that is renewed takes seconds, a database that is backed up
# or locked up to a minute; who waits at the end of a run waits no longer than that.
PATIENCE_S = 60.0
HURRIED_S = 5.0  # who asks a process to end may kill it after ten seconds
POLL_S = 1.0

T = TypeVar("T")


def patiently(call: Callable[[], T], patience_s: float | None = None) -> T:
    """The answer of a call that changes nothing; tried again while the store is away.

    Raises:
        TrackingLost: it stayed away for `patience_s` seconds; what it refuses is raised as it is.
    """
    end = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    while True:
        try:
            return call()
        except Exception as error:
            if not faults.transient(error):
                raise
            if time.monotonic() >= end:
                said = faults.reason(error)
                raise TrackingLost(f"the tracking store went away: {said}") from error
        time.sleep(POLL_S)


class _Patient:
    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not callable(value):
            return value
        return lambda *given, **named: patiently(lambda: value(*given, **named))


def patient(client: MlflowClient) -> MlflowClient:
    """A client for reading, each of whose calls waits for the store (`patiently`)."""
    return cast("MlflowClient", _Patient(client))
