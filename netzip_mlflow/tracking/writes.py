"""What is written to MLflow, as plain values: sent now, or saved and sent later."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.tracking import description, models
from netzip_mlflow.tracking.opening import experiment_named
from netzip_mlflow.tracking.reaper import GONE, REASON

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["CLIENT_ID", "Sender", "Unresolved", "Write", "new_id"]

DESCRIBED = "netzip.described"  # on an experiment: when its other tags were written
CLIENT_ID = "netzip.client_id"  # a run that was created although nobody heard the answer
_ID = re.compile(r"unsent-[0-9a-f]{32}")


def new_id() -> str:
    """A text that stands for a run until the store has created it."""
    return f"unsent-{uuid.uuid4().hex}"


class Unresolved(NetzipError):
    """A write that names a run which was never created."""


@dataclass(frozen=True, eq=False)
class Write:
    """One change of the store.

    Args:
        kind: a key of `Sender.KINDS`.
        run: the run's id, or what stands for it (`new_id`).
        name: of the run, for people.
        what: plain values, as JSON has them.
        file: what is uploaded; it must stay until then.
        at: when it was written, in milliseconds since 1970.
    """

    kind: str
    run: str
    name: str
    at: int
    what: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def measured(self) -> bool:
        """Whether figures or a run are lost with it, not a file alone."""
        return self.kind in {"create", "batch"}

    @property
    def subject(self) -> str:
        """The file, or what else it is that is written."""
        return self.file.name if self.file else str(self.what.get("file") or self.kind)

    def __str__(self) -> str:
        return f"{self.subject} of {self.name}" if self.name else self.subject


@dataclass(eq=False)
class Sender:
    """Sends writes. `runs` and `models`: the ids that the store gave, by the run's own."""

    client: MlflowClient
    experiment: Callable[[], str]
    runs: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def __call__(self, write: Write, again: bool) -> None:
        """Send a write; `again`: an earlier try may have arrived, although it seemed to fail.

        Raises:
            Unresolved: it names a run that was never created; else whatever MLflow raises.
        """
        self.KINDS[write.kind](self, write, again)

    def id_of(self, run: str) -> str:
        """The id by which the store knows a run.

        Raises:
            Unresolved: it was never created.
        """
        return self._ids(run)

    def _ids(self, text: str) -> str:
        """A text with the ids of runs in it in place of what stood for them."""

        return _ID.sub(lambda named: self._id(named.group()), text)

    def _id(self, run: str) -> str:
        if run not in self.runs:  # of another process, or never created
            same = f"tags.`{CLIENT_ID}` = '{run}'"
            earlier = self.client.search_runs([self.experiment()], same, max_results=1)
            if not earlier:
                raise Unresolved("its run could not be created")
            self.runs[run] = earlier[0].info.run_id
        return self.runs[run]

    def _texts(self, given: Mapping[str, Any]) -> dict[str, str]:
        return {key: self._ids(str(value)) for key, value in given.items()}

    def _create(self, write: Write, again: bool) -> None:
        if again:
            with contextlib.suppress(Unresolved):
                self._id(write.run)
                return
        experiment = self.experiment()
        tags = self._texts(write.what["tags"]) | {CLIENT_ID: write.run}
        created = self.client.create_run(experiment, write.at, tags, write.name)
        self.runs[write.run] = created.info.run_id

    def _batch(self, write: Write, _again: bool) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run, what = self._ids(write.run), write.what
        model = self.models.get(write.run)
        self.client.log_batch(
            run,
            metrics=[
                Metric(key, value, write.at, what["step"], model_id=model, run_id=run)
                for key, value in what["metrics"].items()
            ],
            params=[Param(*pair) for pair in self._texts(what["params"]).items()],
            tags=[RunTag(*pair) for pair in self._texts(what["tags"]).items()],
        )

    def _artifact(self, write: Write, _again: bool) -> None:
        self.client.log_artifact(self._ids(write.run), str(write.file), write.what["folder"])

    def _text(self, write: Write, _again: bool) -> None:
        text = self._ids(write.what["text"])
        self.client.log_text(self._ids(write.run), text, write.what["file"])

    def _dataset(self, write: Write, _again: bool) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        name = write.what["name"]
        source = CodeDatasetSource(tags={"netzip.data": name})
        entity = MetaDataset(source=source, name=name, digest=write.what["digest"])
        context = [InputTag("mlflow.data.context", write.what["context"])]
        given = DatasetInput(entity._to_mlflow_entity(), context)
        self.client.log_inputs(self._ids(write.run), datasets=[given])

    def _model(self, write: Write, again: bool) -> None:
        assert write.file is not None  # noqa: S101 (a model is a folder)
        run, experiment = self._ids(write.run), self.experiment()
        logged = models.log_deployable(
            self.client, experiment, run, write.file, write.what["model"], again=again
        )
        self.models[write.run] = logged

    def _register(self, write: Write, again: bool) -> None:
        run, what = self._ids(write.run), write.what
        if write.run not in self.models:
            raise Unresolved("its model could not be logged")
        model, tags = self.models[write.run], self._texts(what["tags"])
        earlier_try = write.at if again else None
        name, alias = what["model"], what["alias"]
        models.add_version(self.client, name, alias, run, model, tags, earlier_try=earlier_try)

    def _end(self, write: Write, again: bool) -> None:
        run = self._ids(write.run)
        if again and self.client.get_run(run).data.tags.get(REASON) == GONE:
            self.client.delete_tag(run, REASON)  # it was to end otherwise
        self.client.set_terminated(run, write.what["status"], write.at)

    def _tags(self, write: Write, _again: bool) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(*pair) for pair in self._texts(write.what["tags"]).items()]
        self.client.log_batch(self._ids(write.run), tags=tags)

    def _adopt(self, write: Write, again: bool) -> None:
        self._tags(write, again)
        run, status = self._ids(write.run), write.what["status"]
        if status and self.client.get_run(run).info.status != status:
            self.client.set_terminated(run, status)

    def _end_trials(self, write: Write, _again: bool) -> None:
        run, statuses = self._ids(write.run), {}
        for trial, status in write.what["statuses"].items():
            with contextlib.suppress(Unresolved):
                statuses[self._ids(trial)] = status
        of = f"tags.`netzip.parent` = '{run}' AND tags.`netzip.kind` = 'trial'"
        running = f"attributes.status = 'RUNNING' AND {of}"
        for trial in self.client.search_runs([self.experiment()], running):
            status = statuses.get(trial.info.run_id, "KILLED")
            if status != "RUNNING":
                self.client.set_terminated(trial.info.run_id, status)

    def _experiment_tags(self, write: Write, again: bool) -> None:
        experiment, at = write.what["experiment"], str(write.at)
        if again and (name := write.what.get("name")):  # another store has another id for it
            experiment = experiment_named(self.client, name)
        if again and self.client.get_experiment(experiment).tags.get(DESCRIBED, "") > at:
            return  # by a later command
        for key, value in [*self._texts(write.what["tags"]).items(), (DESCRIBED, at)]:
            description.set_tag(self.client, experiment, key, value)

    KINDS = {  # noqa: RUF012 (a literal table of methods)
        "create": _create,
        "batch": _batch,
        "tags": _tags,  # what became of a run: refused, it costs nobody anything
        "artifact": _artifact,
        "text": _text,
        "dataset": _dataset,
        "model": _model,
        "register": _register,
        "end": _end,
        "adopt": _adopt,
        "end_trials": _end_trials,
        "experiment_tags": _experiment_tags,
    }
