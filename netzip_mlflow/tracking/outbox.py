"""What cannot be sent while the server is away waits here, in order, and is sent again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from netzip_mlflow.tracking.reachable import healthy

__all__ = ["Outbox"]

POLL_S = 1.0


class Outbox:
    """Calls to MLflow, in order. While the server is away they are kept; none is dropped."""

    def __init__(
        self,
        uri: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        health: Callable[[str], str | None] = healthy,
    ) -> None:
        self._uri, self._clock, self._pause, self._health = uri, clock, pause, health
        self._waiting: list[tuple[Callable[[], Any], Mapping[str, Any] | None]] = []
        self.reason: str | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, call: Callable[[], Any], note: Mapping[str, Any] | None = None) -> None:
        """Make the call now, or keep it when the server is away or earlier calls still wait.

        Errors that are not the server's absence are raised. `note` is what the call would write, as
        plain values: it is what can be saved when the server never comes back.
        """
        self._waiting.append((call, note))
        self._try()

    def notes(self) -> list[Mapping[str, Any]]:
        """What still waits, in order."""
        return [note for _, note in self._waiting if note is not None]

    def flush(self, patience_s: float) -> bool:
        """Try until all is sent or `patience_s` seconds have passed; whether all was sent.

        A call that is refused does not hold up those behind it (the end of a run is the last):
        the first such error is raised when everything else is sent or the patience is spent.
        """
        end = self._clock() + patience_s
        refused: Exception | None = None
        while True:
            try:
                self._try()
            except Exception as error:  # noqa: BLE001 (raised below)
                refused = refused or error
                continue
            if not self._waiting or self._clock() >= end:
                break
            self._pause(POLL_S)
        if refused is not None:
            raise refused
        return not self._waiting

    def _try(self) -> None:
        if self.reason is not None and (reason := self._health(self._uri)) is not None:
            self.reason = reason
            return
        self.reason = None
        while self._waiting:
            try:
                self._waiting[0][0]()
            except Exception:
                reason = self._health(self._uri)
                if reason is None:
                    del self._waiting[0]
                    raise
                self.reason = reason
                return
            del self._waiting[0]
