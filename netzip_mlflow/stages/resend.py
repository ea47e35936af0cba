"""The command `resend`: what a store never got, from the folder that a command left for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netzip_mlflow.databases import without_password
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.tracking.opening import experiment_named, opened, store_errors
from netzip_mlflow.tracking.outbox import MARKED, REFUSED, Outbox
from netzip_mlflow.tracking.unsent import Unsent, load, save
from netzip_mlflow.tracking.writes import Sender, Unresolved, Write

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Resent", "resend"]

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Resent:
    """What a resend came to. `left`: each write that is still in the folder, and why."""

    folder: Path
    store: str
    sent: int
    left: tuple[tuple[str, str], ...]

    def as_object(self) -> dict[str, object]:
        """For machines."""
        left = [{"what": what, "reason": reason} for what, reason in self.left]
        return {"folder": str(self.folder), "sent": self.sent, "left": left}

    def as_text(self) -> str:
        """For people."""
        lines = [f"{self.folder}: {self.sent} writes sent to {self.store}"]
        lines += [f"  left: {what}: {reason}" for what, reason in self.left]
        return "\n".join(lines if self.left else [f"{lines[0]}; the folder can be removed"])


def resend(
    folder: Path, option: str | None = None, say: Callable[[str], None] = lambda _line: None
) -> Resent:
    """Send what lies in a folder: runs that are missing are created, those that are there go on.

    A call that is repeated, or was interrupted, sends nothing twice.

    Args:
        option: another address than the one that the folder names.

    Raises:
        InputError: the folder holds nothing to send, or the store cannot be used.
    """
    unsent = load(folder)
    store = _store(unsent, option)
    client = opened(store)
    experiment = _experiment(client, unsent)
    sender = Sender(client, experiment, dict(unsent.runs), dict(unsent.models))
    remaining = list(unsent.writes)

    def deliver(write: Write, again: bool) -> None:
        sender(write, again)
        if write in remaining:
            remaining.remove(write)
            known = (unsent.store, unsent.experiment, sender.runs, sender.models)
            save(folder, Unsent(*known, tuple(remaining)))
            say(f"sent: {write}")

    outbox = Outbox(store, deliver)
    outbox.put(remaining)
    with contextlib.suppress(NetzipError):  # which writes are refused stands in the outbox
        outbox.flush(PATIENCE_S)
    sent = [write for write in unsent.writes if write not in remaining]
    _unmark(sender, sent, remaining)
    reasons = {each.write: each.reason for each in outbox.refused}
    left = [(str(w), reasons.get(w, outbox.reason or "not tried")) for w in remaining]
    return Resent(folder, without_password(store), len(sent), tuple(left))


def _store(unsent: Unsent, option: str | None) -> str:
    """The store's address. A saved one lacks its password; the environment's may have it."""
    if option:
        return option
    if without_password(given := os.environ.get("MLFLOW_TRACKING_URI", "")) == unsent.store:
        return given
    if "***" in unsent.store:
        raise InputError(
            f"{unsent.store}: its password was not saved; give the whole address with "
            "--tracking-uri or MLFLOW_TRACKING_URI"
        )
    return unsent.store


def _experiment(client: MlflowClient, unsent: Unsent) -> Callable[[], str]:
    """The experiment by its name, made where it is missing; by its id where no name was known."""

    def experiment() -> str:
        name = unsent.experiment.get("name")
        if not name:
            return str(unsent.experiment.get("id"))
        return experiment_named(client, name)

    return experiment


def _unmark(sender: Sender, sent: list[Write], remaining: list[Write]) -> None:
    """A run that lacks no file any more does not say so."""
    lacking = {write.run for write in remaining if write.kind in MARKED}
    for run in {write.run for write in sent if write.kind in MARKED} - lacking:
        with contextlib.suppress(Unresolved, *store_errors()):  # a tag that was never set
            sender.client.delete_tag(sender.id_of(run), REFUSED)
