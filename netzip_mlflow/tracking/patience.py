"""Reads that wait for a store which is away for a while, as writes do in the outbox."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from netzip_mlflow.errors import TrackingLost
from netzip_mlflow.tracking import faults

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["HURRIED_S", "PATIENCE_S", "hurried", "patient", "patiently"]

# A server that restarts or a token that is renewed takes seconds, a database that is backed up
# or locked up to a minute; who waits at the end of a run waits no longer than that.
PATIENCE_S = 60.0
HURRIED_S = 4.0  # who asks a process to end may kill it after ten seconds
CALL, CALL_S = "MLFLOW_HTTP_REQUEST_TIMEOUT", "2"  # whole seconds; MLflow waits for 120
POLL_S = 1.0

T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """The answer of a call that changes nothing; tried again while the store is away.

    Raises:
        TrackingLost: it stayed away for `PATIENCE_S`; what it refuses is raised as it is.
    """
    end = time.monotonic() + PATIENCE_S
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


@contextlib.contextmanager
def hurried() -> Iterator[float]:
    """While it lasts, no call waits long for a server that does not answer; for how long it may."""
    before = os.environ.get(CALL)
    os.environ[CALL] = CALL_S
    try:
        yield HURRIED_S
    finally:
        os.environ.pop(CALL)
        os.environ.update({} if before is None else {CALL: before})


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
