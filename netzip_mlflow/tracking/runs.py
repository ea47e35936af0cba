"""Runs of MLflow: one parent that always ends, children below it, everything in batches."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow.databases import without_password
from netzip_mlflow.errors import InputError, NetzipError, TrackingLost
from netzip_mlflow.tracking.outbox import Outbox
from netzip_mlflow.tracking.reachable import check_reachable
from netzip_mlflow.tracking.reaper import owner_tags, reap
from netzip_mlflow.tracking.signals import Killed, deferred, ending, stopped
from netzip_mlflow.tracking.tables import have_tables

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Run", "Tracker", "explain"]

PATIENCE_S = 30.0
NOTE = "mlflow.note.content"
NOTE_LIMIT = 8000  # characters of a tag
UNSENT = "unsent.json"


class Tracker:
    """The store, and one experiment in it.

    Under `mlflow run` (MLFLOW_RUN_ID is set) the experiment is that run's, whatever is asked for.

    Raises:
        TrackingUnavailable: the store cannot be reached or opened.
    """

    def __init__(self, uri: str, experiment: str | None = None) -> None:
        check_reachable(uri)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow

        # a new database announces each step of its making
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        _require_database_support(uri)
        self.uri = uri
        mlflow.set_tracking_uri(uri)
        self.outbox = Outbox(uri)
        try:
            have_tables(uri)
            self.client: MlflowClient = mlflow.MlflowClient(uri)
            self._resumed = os.environ.get("MLFLOW_RUN_ID")
            if self._resumed:
                self._experiment_id = self._adopt(self._resumed)
            else:
                self._experiment_id = self._find(experiment)
            if self._experiment_id is not None:
                reap(self.client, self._experiment_id)
        except _store_errors() as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"the tracking store {without_password(uri)} cannot be used: "
                f"{without_password(reason)}"
            ) from error

    def _adopt(self, run_id: str) -> str:
        """Own the run that `mlflow run` started, before any work: kill -9 may come at any time."""
        for key, value in owner_tags().items():
            self.client.set_tag(run_id, key, value)
        return self.client.get_run(run_id).info.experiment_id

    @property
    def experiment_id(self) -> str:
        """The experiment; made when it is first needed, so that bad input leaves none behind."""
        if self._experiment_id is None:
            found = self.client.get_experiment_by_name(self._name)  # another may have made it since
            made = found.experiment_id if found else self.client.create_experiment(self._name)
            self._experiment_id = made
        return self._experiment_id

    def _find(self, name: str | None) -> str | None:
        given = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if given and name is None:
            return given
        self._name = name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "netzip"
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return None
        if found.lifecycle_stage == "deleted":
            raise InputError(f"experiment {name!r} is deleted: restore it, or name another")
        return found.experiment_id

    @contextlib.contextmanager
    def parent(
        self, kind: str, name: str, *, keep: Callable[[str], Path] | None = None
    ) -> Iterator[Run]:
        """A parent run: FINISHED, FAILED with its reason, or KILLED, and its children with it.

        Args:
            kind: the tag `netzip.kind`.
            name: the run's name, unless `mlflow run` has named it.
            keep: called when the server went away for good; saves what was measured and returns
                the place that the error names.

        Raises:
            TrackingLost: the server did not come back; everything else is as the block raised it.
        """
        with self._lasting(lambda: Run(self, kind, name, resume=self._resumed), keep) as run:
            yield run

    @contextlib.contextmanager
    def joined(
        self, kind: str, run_id: str, *, keep: Callable[[str], Path] | None = None
    ) -> Iterator[Run]:
        """The parent run of another process, to make children below it: these end with the block.

        Raises:
            TrackingLost: as `parent`.
        """
        with self._lasting(lambda: Run(self, kind, "", resume=run_id, attach=True), keep) as run:
            yield run

    @contextlib.contextmanager
    def _lasting(
        self, begin: Callable[[], Run], keep: Callable[[str], Path] | None
    ) -> Iterator[Run]:
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
            with ending():
                try:
                    if run is not None:
                        run.end(status, reason)
                finally:
                    self._settle(keep)

    def _settle(self, keep: Callable[[str], Path] | None) -> None:
        if self.outbox.flush(PATIENCE_S):
            return
        place = ""
        if keep:
            folder = keep("unsent")
            text = json.dumps(self.outbox.notes(), indent=2)
            (folder / UNSENT).write_text(text, encoding="utf-8")
            place = f"; what was measured is in {folder}, the writes themselves in {UNSENT} there"
        raise TrackingLost(
            f"the tracking server {without_password(self.uri)} went away ({self.outbox.reason}) "
            f"and {len(self.outbox)} writes could not be sent{place}"
        )

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """Tags of an experiment: its note and its saved views."""
        for key, value in tags.items():
            self.outbox.send(
                lambda k=key, v=value: self.client.set_experiment_tag(experiment_id, k, v)
            )


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
        self._tracker, self._parent, self._below = tracker, parent, below
        self._attached = attach
        self._children: list[Run] = []
        self._id: str | None = resume
        self._ended = False
        self._note = ""
        self.kind, self.name = kind, name
        self.model_id: str | None = None
        given = {"netzip.kind": kind, **owner_tags(), **(tags or {})}
        if attach:
            return
        if resume:
            self.log(tags=given)
        else:
            self._send(lambda: self._create(given))

    @property
    def id(self) -> str:
        """The run's id; empty while the server has been away since before it was made."""
        return self._id or ""

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
        from mlflow.entities import RunTag

        given = {**tags, "netzip.parent": self.id, "mlflow.parentRunId": self.id}

        def call() -> None:
            client = self._tracker.client
            client.log_batch(run_id, tags=[RunTag(k, v) for k, v in given.items()])
            if status and client.get_run(run_id).info.status != status:
                client.set_terminated(run_id, status)

        self._send(call)

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
        from mlflow.entities import Metric, Param, RunTag

        for key, value in (metrics or {}).items():
            if not math.isfinite(value):
                raise NetzipError(
                    f"metric {key} of {self.name} is {value}; only finite values are logged"
                )
        now = int(time.time() * 1000)
        self._send(
            lambda: self._tracker.client.log_batch(
                self.id,
                metrics=[
                    Metric(k, float(v), now, step, model_id=self.model_id, run_id=self.id)
                    for k, v in (metrics or {}).items()
                ],
                params=[Param(k, str(v)) for k, v in (params or {}).items()],
                tags=[RunTag(k, str(v)) for k, v in (tags or {}).items()],
            ),
            {
                "run": self.name,
                "kind": self.kind,
                "step": step,
                "metrics": dict(metrics or {}),
                "params": {k: str(v) for k, v in (params or {}).items()},
                "tags": {k: str(v) for k, v in (tags or {}).items()},
            },
        )

    def note(self, text: str) -> None:
        """The run's note, Markdown; a fault that ends the run is said above it."""
        self._note = text[:NOTE_LIMIT]
        self.log(tags={NOTE: self._note})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file, or all files of a folder. It must stay until the parent has ended."""
        client = self._tracker.client
        log = client.log_artifacts if path.is_dir() else client.log_artifact
        self._send(lambda: log(self.id, str(path), folder))

    def text(self, text: str, file: str) -> None:
        """A text as an artifact."""
        self._send(lambda: self._tracker.client.log_text(self.id, text, file))

    def dataset(self, name: str, digest: str, context: str) -> None:
        """The data set as an input of the run: name, digest and which split."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        source = CodeDatasetSource(tags={"netzip.data": name})
        entity = MetaDataset(source=source, name=name, digest=digest)._to_mlflow_entity()
        given = DatasetInput(entity, [InputTag("mlflow.data.context", context)])
        self._send(lambda: self._tracker.client.log_inputs(self.id, datasets=[given]))

    def model(self, log: Callable[[Run], str]) -> None:
        """Log a model; `log` returns the model's id, to which later metrics are linked."""

        def call() -> None:
            self.model_id = log(self)

        self._send(call)

    def deferred(self, call: Callable[[], Any]) -> None:
        """A call of the client's own, in its turn behind what this run has written."""
        self._send(call)

    def end(self, status: str = "FINISHED", reason: str = "") -> None:
        """End the run and every child still open, once."""
        if self._ended:
            return
        self._ended = True
        for child in self._children:
            child.end(status, reason)
        if self._attached:
            return
        if reason:
            tags = {"netzip.reason": reason[:5000]}
            if self._parent is None:
                said = f"**{status.lower()}**: {reason}"[:5000]
                tags[NOTE] = f"{said}\n\n{self._note}"[:NOTE_LIMIT] if self._note else said
            self.log(tags=tags)
        self._send(lambda: self._tracker.client.set_terminated(self.id, status))

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

        given = resolve_tags(dict(tags))
        if self._parent is not None:
            given["netzip.parent"] = self._parent.id
            given["mlflow.parentRunId"] = self._below or self._parent.id
        created = self._tracker.client.create_run(
            self._tracker.experiment_id, tags=given, run_name=self.name
        )
        self._id = created.info.run_id

    def _send(self, call: Callable[[], Any], note: Mapping[str, Any] | None = None) -> None:
        self._tracker.outbox.send(call, note)


def _require_database_support(uri: str) -> None:
    if not uri.startswith(("http:", "https:")) and find_spec("sqlalchemy") is None:
        raise InputError(
            f"the tracking store {uri} needs full mlflow, here is mlflow-skinny: name a server "
            "with --tracking-uri http://... (or measure files with --no-log)"
        )


def _store_errors() -> tuple[type[Exception], ...]:
    """What a store that cannot be used raises; a database's own errors pass through MLflow."""
    from mlflow.exceptions import MlflowException

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ModuleNotFoundError:  # mlflow-skinny
        return (MlflowException,)
    return MlflowException, SQLAlchemyError


def explain(uri: str, run_id: str, reason: str) -> None:
    """Leave a reason on a run that something else will mark as failed (`mlflow run` does).

    A run that is not there has nobody to read it: the caller has said the reason already.
    """
    import mlflow

    with contextlib.suppress(*_store_errors()):
        client = mlflow.MlflowClient(uri)
        client.set_tag(run_id, "netzip.reason", reason[:5000])
        said = f"**failed**: {reason}"[:5000]
        if not client.get_run(run_id).data.tags.get(NOTE, "").startswith(said):
            client.set_tag(run_id, NOTE, said)
