"""What cannot be sent while the store is away waits here, in order, and is sent again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.tracking import faults
from netzip_mlflow.tracking.reachable import healthy
from netzip_mlflow.tracking.writes import Unresolved, Write

__all__ = ["MARKED", "REFUSED", "Outbox", "Refused"]

POLL_S = 1.0
REFUSED = "netzip.refused"  # on the run: files that it lacks
MARKED = ("artifact", "text", "model", "dataset", "register")
PASSED_OVER = 3  # writes that fail one after another, when the rest is tried at last
EXTRA = 1.25  # of the patience, after which only ends are tried then
LOOSE = ("artifact", "text")  # nothing needs them
TRIES = 3  # of a loose write, which then holds up no other until the end


@dataclass(frozen=True)
class Refused:
    """A write that the store does not take, and why."""

    write: Write
    reason: str


class Outbox:
    """Writes to MLflow, in order. While the store is away they are kept; none is dropped.

    A write that the store refuses holds up nothing: it stands in `refused`, and `say` is told.

    Args:
        uri: the store's address, asked for its health after a failure.
        deliver: sends a write; its second argument says that an earlier try may have arrived.
    """

    def __init__(
        self,
        uri: str,
        deliver: Callable[[Write, bool], None],
        *,
        say: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        health: Callable[[str], str | None] = healthy,
    ) -> None:
        self._uri, self._deliver, self._say = uri, deliver, say
        self._clock, self._pause, self._health = clock, pause, health
        self._waiting: list[Write] = []
        self._tries: dict[Write, int] = {}  # of what waits: what failed may have arrived
        self._faults: dict[Write, NetzipError] = {}  # to be raised
        self._next_try = self._last_success = clock()
        self.refused: list[Refused] = []
        self.reason: str | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def unsent(self) -> list[Write]:
        """What the store does not have, in order: refused before, waiting after."""
        return [*(each.write for each in self.refused), *self._waiting]

    def waits_for(self, path: Path) -> bool:
        """Whether a file, or one in this folder, is still to be sent."""
        files = [write.file for write in self.unsent if write.file is not None]
        return any(f == path or path in f.parents or f in path.parents for f in files)

    def fault(self, write: Write) -> str:
        """Why the store does not have a write, in a line; empty where it has."""
        if write in self._waiting:
            return f"it waits until the store is back ({self.reason})"
        return next((each.reason for each in self.refused if each.write is write), "")

    def put(self, writes: Iterable[Write]) -> None:
        """Writes of an earlier process, any of which may have arrived; `flush` sends them."""
        self._waiting += writes
        self._tries.update(dict.fromkeys(self._waiting, 1))

    def keep(self, write: Write) -> None:
        """Keep a write, without a try, until the next one is sent."""
        self._waiting.append(write)

    def send(self, write: Write) -> None:
        """Send a write now, or keep it while the store is away or earlier ones still wait.

        Raises:
            NetzipError: its figures or its run are refused; a file that is costs that file alone.
                What is heard of an earlier write is raised by `flush`.
        """
        self.keep(write)
        if self.reason is None or self._clock() >= self._next_try:
            self._try(ask=self.reason is not None)
        if write in self._faults:
            raise self._faults.pop(write)

    def flush(self, patience_s: float) -> bool:
        """Try until all is sent, or nothing was for `patience_s` seconds; whether all was sent.

        Raises:
            NetzipError: figures or a run were refused; everything behind them was sent first.
        """
        begun = self._clock()
        while self._waiting:
            healthy = self._try(ask=True, last=True)
            if not self._waiting:
                break
            if self._clock() - max(begun, self._last_success) >= patience_s:
                if healthy:
                    self._pass_over(begun, EXTRA * patience_s)
                break
            self._pause(POLL_S)
        refusals, self._faults = [*self._faults.values()], {}
        if refusals:
            raise refusals[0]
        return not self._waiting

    def _try(self, *, ask: bool, last: bool = False) -> bool:
        """Send what waits, up to a write that fails; whether the store was there.

        Args:
            ask: for its health first.
            last: what was set aside, too.
        """
        begun = self._clock()
        if ask and (reason := self._health(self._uri)) is not None:
            self._away(reason, begun)
            return False
        while (write := self._next(last=last)) is not None:
            if not self._sent(write):
                return True
        self.reason = None
        return True

    def _next(self, *, last: bool) -> Write | None:
        """The first that waits; one that is set aside only when nothing else does."""
        for write in self._waiting:
            if write.kind not in LOOSE or self._tries.get(write, 0) < TRIES:
                return write
        return self._waiting[0] if last and self._waiting else None

    def _sent(self, write: Write) -> bool:
        """Whether the store has answered for a write, by taking or by refusing it."""
        begun, tries = self._clock(), self._tries.get(write, 0)
        self._tries[write] = tries + 1
        try:
            self._deliver(write, tries > 0)
        except Exception as error:  # noqa: BLE001 (any library below MLflow's client; kept or said)
            # a registry that lets nobody in is no reason for everything behind it to wait
            denied = write.kind == "register" and faults.status_of(error) in faults.DENIED
            if faults.transient(error) and not denied:
                self._away(faults.reason(error), begun)
                return False
            self._answered(write)
            self._refuse(write, error)
            return True
        self._answered(write)
        self.reason, self._last_success = None, self._clock()
        return True

    def _answered(self, write: Write) -> None:
        self._waiting.remove(write)
        self._tries.pop(write)

    def _away(self, reason: str, begun: float) -> None:
        """At most a third of the time is spent on tries: each may wait for a lock or an answer."""
        now = self._clock()
        self.reason, self._next_try = reason, now + max(POLL_S, 2 * (now - begun))

    def _refuse(self, write: Write, error: Exception) -> None:
        reason = faults.reason(error)
        self.refused.append(Refused(write, reason))
        if isinstance(error, Unresolved):  # the run itself was refused, and said
            return
        self._say(f"MLflow refuses {write}: {reason}")
        if write.kind in MARKED:
            same = [r for r in self.refused if r.write.run == write.run]
            tags = {REFUSED: "\n".join(f"{r.write.subject}: {r.reason}" for r in same)[:5000]}
            self._waiting.append(Write("tags", write.run, write.name, write.at, {"tags": tags}))
        if write.measured:
            self._faults[write] = NetzipError(f"MLflow refuses {write}: {reason}")

    def _pass_over(self, begun: float, patience_s: float) -> None:
        """What the store takes of what waits: a write that never arrives holds up no other run, and
        of its own run only what needs it; an end needs nothing (a disk may be full for files)."""
        failures, held = 0, set()
        for write in list(self._waiting):
            over = self._clock() - max(begun, self._last_success) >= patience_s
            if write.kind != "end" and (write.run in held or failures >= PASSED_OVER or over):
                continue
            try:
                self._deliver(write, True)
            except Unresolved:
                continue
            except Exception:  # noqa: BLE001 (it stays among what waits)
                held |= {write.run} if write.kind in {"create", "model"} else set()
                failures += 1
                if write.kind == "end":
                    return
            else:
                self._waiting.remove(write)
                self._last_success = self._clock()
                failures = failures if write.kind == "end" else 0
