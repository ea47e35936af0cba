"""Runs of MLflow: one parent that always ends, children below it, everything in batches."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow.databases import without_password
from netzip_mlflow.errors import InputError, NetzipError, Problem, TrackingLost
from netzip_mlflow.recipe import as_written
from netzip_mlflow.tracking import patience
from netzip_mlflow.tracking.description import NOTE
from netzip_mlflow.tracking.faults import reason as said_by
from netzip_mlflow.tracking.faults import transient
from netzip_mlflow.tracking.opening import experiment_named, opened, store_errors
from netzip_mlflow.tracking.outbox import Outbox
from netzip_mlflow.tracking.reachable import absolute, unusable
from netzip_mlflow.tracking.reaper import owner_tags, reap
from netzip_mlflow.tracking.signals import Killed, deferred, ending, stopped
from netzip_mlflow.tracking.unsent import Unsent, rescue
from netzip_mlflow.tracking.writes import Sender, Write, new_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

__all__ = ["Run", "Tracker", "explain"]

NOTE_LIMIT = 8000  # characters of a tag


class Tracker:
    """The store, and one experiment in it.

    Under `mlflow run` (MLFLOW_RUN_ID is set) the experiment is that run's, whatever is asked for.

    Raises:
        TrackingUnavailable: the store cannot be reached or opened.
    """

    def __init__(
        self,
        uri: str,
        experiment: str | None = None,
        *,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        client = opened(uri)
        self.uri, self._say, self._name = uri, say, ""
        self._store = absolute(uri)  # the folder may be gone at the end
        self.sender = Sender(client, self._experiment)
        self.outbox = Outbox(uri, self.sender, say=say)
        self.client: MlflowClient = client
        self.keeps = False  # whether a work folder holds what was not sent, and must stay
        try:
            self._resumed = os.environ.get("MLFLOW_RUN_ID")
            if self._resumed:
                self._experiment_id = self._adopt(self._resumed)
            else:
                self._experiment_id = self._find(experiment)
            if self._experiment_id is not None:
                reap(self.client, self._experiment_id)
        except store_errors() as error:
            raise InputError(unusable(uri, said_by(error))) from error
        self.client = patience.patient(client)

    def _adopt(self, run_id: str) -> str:
        """Own the run that `mlflow run` started, before any work: kill -9 may come at any time."""
        for key, value in owner_tags().items():
            self.client.set_tag(run_id, key, value)
        experiment = self.client.get_run(run_id).info.experiment_id
        self._name = self.client.get_experiment(experiment).name
        return experiment

    @property
    def experiment_id(self) -> str:
        """The experiment; made when it is first needed, so that bad input leaves none behind."""
        return patience.patiently(self._experiment)

    def _experiment(self) -> str:
        if self._experiment_id is None:
            self._experiment_id = experiment_named(self.sender.client, self._name)
        return self._experiment_id

    def _find(self, name: str | None) -> str | None:
        number = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if number and name is None:
            return self._by_id("MLFLOW_EXPERIMENT_ID", number)
        self._name = name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "netzip"
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return self._by_id("--experiment", name) if name.isdecimal() else None
        return self._undeleted(found)

    def _by_id(self, where: str, number: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            experiment = self.client.get_experiment(number)
        except (MlflowException, ValueError) as error:
            if transient(error):
                raise
            problem = Problem(where, f"no experiment has the id {number!r}", "an id in the store")
            raise InputError(problem) from None
        self._name = experiment.name
        return self._undeleted(experiment)

    @staticmethod
    def _undeleted(experiment: Experiment) -> str:
        if experiment.lifecycle_stage == "deleted":
            name = experiment.name
            raise InputError(f"experiment {name!r} is deleted: restore it, or name another")
        return experiment.experiment_id

    def parent(
        self, kind: str, name: str, *, folder: Path | None = None
    ) -> AbstractContextManager[Run]:
        """A parent run: FINISHED, FAILED with its reason, or KILLED, and its children with it.

        Args:
            kind: the tag `netzip.kind`.
            name: the run's name, unless `mlflow run` has named it.
            folder: holds the files that are logged; where the store stays away, or refuses some,
                it is moved into the current folder with what `netzip resend` needs.

        Raises:
            TrackingLost: the server did not come back; everything else is as the block raised it.
        """
        return self._lasting(lambda: Run(self, kind, name, resume=self._resumed), folder)

    def joined(
        self, kind: str, run_id: str, *, folder: Path | None = None
    ) -> AbstractContextManager[Run]:
        """The parent run of another process, to make children below it: these end with the block.

        Raises:
            TrackingLost: as `parent`.
        """
        return self._lasting(lambda: Run(self, kind, "", resume=run_id, attach=True), folder)

    @contextlib.contextmanager
    def _lasting(self, begin: Callable[[], Run], folder: Path | None) -> Iterator[Run]:
        run, status, reason = None, "FINISHED", ""
        try:
            with deferred():  # a run that is there is known here
                run = begin()
            yield run
        except (Killed, KeyboardInterrupt) as stop:
            status, reason = "KILLED", f"stopped by {str(stop) or 'Ctrl-C'}"
            raise
        except BaseException as error:
            status, reason = "FAILED", str(error) or type(error).__name__
            if (stop := stopped()) is not None:  # and this is what a library made of it
                status, reason = "KILLED", f"stopped by {str(stop) or 'Ctrl-C'}"
                raise stop from error
            raise
        finally:
            killed = status == "KILLED"
            limit = patience.hurried() if killed else contextlib.nullcontext(patience.PATIENCE_S)
            with ending(), limit as seconds:
                if run is not None:
                    run.end(status, reason, wait=True)
                try:
                    self._settle(folder, seconds)
                except NetzipError as error:
                    if not killed:
                        raise
                    self._say(str(error))  # the signal passes on

    def _settle(self, folder: Path | None, patience_s: float) -> None:
        """Send what waits; what cannot be is kept, whatever ends the wait."""
        sent = True  # unless nothing else is said
        try:
            sent = self.outbox.flush(patience_s)
        finally:
            count, kept = len(self.outbox), self._kept(folder)
            if sent and kept:
                self._say(f"{len(self.outbox.unsent)} writes could not be sent{kept}")
        if not sent:
            reason = without_password(self.outbox.reason or "", self.uri)
            raise TrackingLost(
                f"the tracking server {without_password(self.uri)} went away ({reason}) "
                f"and {count} writes could not be sent{kept}"
            )

    def _kept(self, folder: Path | None) -> str:
        """Where what was not sent is now, and what sends it; nothing where all was."""
        writes = tuple(self.outbox.unsent)
        if folder is None or not writes:
            return ""
        experiment = {"name": self._name, "id": self._experiment_id}
        store, sender = without_password(self._store), self.sender
        unsent = Unsent(store, experiment, sender.runs, sender.models, writes)
        self.keeps = True
        try:
            place = rescue(folder, unsent, only_files=not len(self.outbox))
        except OSError as error:
            return f"; nor can they be kept: {error}"
        return f"; what was measured is in {place}, send it later: netzip resend {place}"

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Tags of an experiment: its saved views, and its description beside the user's."""
        name = self._name
        if experiment_id != self._experiment_id:
            name = self.client.get_experiment(experiment_id).name
        what = {"experiment": experiment_id, "name": name, "tags": dict(tags)}
        self.outbox.send(Write("experiment_tags", "", "", _now(), what))


class Run:
    """One run; created at once, or when the server is back. Writes go through the outbox.

    `resume` is the id of a run that is there; with `attach` it belongs to another process, which
    ends it.
    """

    def __init__(
        self,
        tracker: Tracker,
        kind: str,
        name: str,
        *,
        parent: Run | None = None,
        below: str | None = None,
        resume: str | None = None,
        attach: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._tracker, self._parent = tracker, parent
        self._attached = attach
        self._children: list[Run] = []
        self._key = resume or new_id()
        self._ended = False
        self._note = ""
        self.kind, self.name = kind, name
        given = {"netzip.kind": kind, **owner_tags(), **(tags or {})}
        if attach:
            return
        if resume:
            self.log(tags=given)
        else:
            if parent is not None:
                given["netzip.parent"] = parent.id
                given["mlflow.parentRunId"] = below or parent.id
            self._create(given)

    @property
    def id(self) -> str:
        """The run's id; until the store has created it, a text that stands for it in tags and texts
        and is replaced when they are sent."""
        return self._tracker.sender.runs.get(self._key, self._key)

    def child(
        self,
        kind: str,
        name: str,
        tags: Mapping[str, str] | None = None,
        *,
        below: str | None = None,
    ) -> Run:
        """A run below this one (shown below `below`, another run's id); it ends by its own `end`,
        or with this one."""
        with deferred():  # a run that is there is known here
            run = Run(self._tracker, kind, name, parent=self, below=below, tags=tags)
            self._children.append(run)
        return run

    def other(self, kind: str, run_id: str) -> Run:
        """The run of another process, which ends it."""
        return Run(self._tracker, kind, kind, resume=run_id, attach=True)

    def adopt(self, run_id: str, status: str, tags: Mapping[str, str]) -> None:
        """A run that an earlier parent has left behind stands below this one from now on; with a
        `status` it ends so, unless it has."""
        given = {**tags, "netzip.parent": self.id, "mlflow.parentRunId": self.id}
        write = Write("adopt", run_id, "", _now(), {"status": status, "tags": given})
        self._tracker.outbox.send(write)

    def log(
        self,
        metrics: Mapping[str, float] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """One batch. Metrics are linked to the run's logged model, when it has one.

        Raises:
            NetzipError: a metric is not finite.
        """
        for key, value in (metrics or {}).items():
            if not math.isfinite(value):
                raise NetzipError(
                    f"metric {key} of {self.name} is {value}; only finite values are logged"
                )
        self._send(
            "batch",
            {
                "step": step,
                "metrics": {k: float(v) for k, v in (metrics or {}).items()},
                "params": {k: _shown(v) for k, v in (params or {}).items()},
                "tags": {k: _shown(v) for k, v in (tags or {}).items()},
            },
        )

    def note(self, text: str) -> None:
        """The run's note, Markdown; a fault that ends the run is said above it."""
        self._note = text[:NOTE_LIMIT]
        self.log(tags={NOTE: self._note})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file, or each file of a folder. It must stay until it is sent: see `Job.release`."""
        if not path.is_dir():
            self._send("artifact", {"folder": folder}, path)
            return
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            inner = file.parent.relative_to(path).as_posix()
            places = [part for part in (folder, inner) if part and part != "."]
            self._send("artifact", {"folder": "/".join(places) or None}, file)

    def text(self, text: str, file: str) -> None:
        """A text as an artifact."""
        self._send("text", {"text": _shown(text), "file": file})

    def dataset(self, name: str, digest: str, context: str) -> None:
        """The data set as an input of the run: name, digest and which split."""
        self._send("dataset", {"name": name, "digest": digest, "context": context})

    def model(self, folder: Path, name: str) -> None:
        """Log a deployable's folder as the run's model, to which later metrics are linked."""
        self._send("model", {"model": name}, folder)

    def register(self, name: str, alias: str, tags: Mapping[str, str]) -> str:
        """Its logged model as a new version of the registered model `name`, found by `alias`.

        Returns:
            Why that is not so, in a line; empty where it is. A refusal harms nothing else.
        """
        write = self._send("register", {"model": name, "alias": alias, "tags": dict(tags)})
        return self._tracker.outbox.fault(write)

    def end_trials(self, statuses: Mapping[str, str]) -> None:
        """End the trials' runs below this one that are RUNNING, by their ids: as `statuses` says,
        else as KILLED."""
        self._send("end_trials", {"statuses": dict(statuses)})

    def end(self, status: str = "FINISHED", reason: str = "", *, wait: bool = False) -> None:
        """End the run and every child still open, once; `wait`: with what is sent next."""
        if self._ended:
            return
        self._ended = True
        for child in self._children:
            child.end(status, reason, wait=wait)
        if self._attached:
            return
        if reason:
            tags = {"netzip.reason": reason[:5000]}
            if self._parent is None:
                said = f"**{status.lower()}**: {reason}"[:5000]
                tags[NOTE] = f"{said}\n\n{self._note}"[:NOTE_LIMIT] if self._note else said
            shown = {key: _shown(value) for key, value in tags.items()}
            self._send("tags", {"tags": shown}, wait=wait)
        self._send("end", {"status": status}, wait=wait)

    @property
    def client(self) -> MlflowClient:
        """For reading; writes go through the run."""
        return self._tracker.client

    @property
    def experiment_id(self) -> str:
        """The experiment that the run belongs to."""
        return self._tracker.experiment_id

    def _create(self, tags: Mapping[str, str]) -> None:
        from mlflow.tracking.context.registry import resolve_tags

        self._send("create", {"tags": resolve_tags(dict(tags))})

    def _send(
        self, kind: str, what: Mapping[str, Any], file: Path | None = None, *, wait: bool = False
    ) -> Write:
        write = Write(kind, self._key, self.name, _now(), what, file)
        outbox = self._tracker.outbox
        (outbox.keep if wait else outbox.send)(write)
        return write


def _now() -> int:
    return int(time.time() * 1000)


def _shown(value: Any) -> str:
    """As it is kept where others read it: no password, no place that a recipe's variable names."""
    return without_password(as_written(str(value)))


def explain(uri: str, run_id: str, reason: str) -> None:
    """Leave a reason on a run that something else will mark as failed (`mlflow run` does).

    A run that is not there has nobody to read it: the caller has said the reason already.
    """
    reason = _shown(reason)
    with contextlib.suppress(InputError, *store_errors()):
        client = opened(uri)
        client.set_tag(run_id, "netzip.reason", reason[:5000])
        said = f"**failed**: {reason}"[:5000]
        if not client.get_run(run_id).data.tags.get(NOTE, "").startswith(said):
            client.set_tag(run_id, NOTE, said)
