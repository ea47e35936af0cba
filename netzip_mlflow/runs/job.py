"""What every command that leaves runs behind shares: a store, a parent run, a work folder."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from netzip_mlflow import folders
from netzip_mlflow.databases import without_secrets
from netzip_mlflow.errors import InputError, NetzipError, Problem, did_you_mean
from netzip_mlflow.metrics import machine

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runtimes import Session
    from netzip_mlflow.tasks import Task
    from netzip_mlflow.tracking import Run, Tracker

__all__ = [
    "Job",
    "Options",
    "chosen",
    "describe_recipe",
    "flattened",
    "job",
    "open_tracker",
    "version_tag",
]

T = TypeVar("T")
PARAM = re.compile(r"[\w-][\w. -]*")  # a part of a param's name that every store takes
PARAM_LENGTH, PARAMS = 200, 50  # characters of a whole name; names of one mapping


@dataclass(frozen=True)
class Options:
    """What the command line adds to a recipe.

    `progress(what, done)` is called as work goes on, `say(line)` for what is worth a line,
    `warn(line)` for what nobody may miss, however quiet; `cache`: whether float techniques' results
    may come from the stage cache, and are kept there.
    """

    tracking_uri: str
    experiment: str | None = None
    command: str = ""
    progress: Callable[[str, float], None] = lambda _what, _done: None
    say: Callable[[str], None] = lambda _line: None
    cache: bool = True
    warn: Callable[[str], None] = lambda _line: None


@dataclass(eq=False)
class Job:
    """One command at work. `folder` holds every file that is measured or logged, until the end."""

    options: Options
    tracker: Tracker
    run: Run
    folder: Path
    missing: dict[str, str] = field(default_factory=dict)

    def piece(self, what: str, make: Callable[..., T], *args: Any, **named: Any) -> T | None:
        """Make a piece of what is shown of measured models: a page, a picture, a table, a note.

        None where it cannot be made: that is said, and kept in `missing`; the rest goes on.
        """
        try:
            done = make(*args, **named)
        # Whatever a font, a full disk, a figure or the store makes of it: the models are measured
        # and their runs have ended, so that a piece costs itself and never the job.
        except Exception as error:  # noqa: BLE001
            *_, frame = traceback.extract_tb(error.__traceback__)
            place = f"{Path(frame.filename).name}, line {frame.lineno}"
            self.missing[what] = f"{type(error).__name__}: {error} ({place})"
            self.say(f"{what} cannot be made: {self.missing[what]}")
            return None
        self.missing.pop(what, None)
        return done

    def say(self, line: str) -> None:
        """A line for whoever watches."""
        self.options.say(line)

    def progress(self, what: str, done: float) -> None:
        """How far a step has come, from 0 to 1."""
        self.options.progress(what, done)

    def release(self, folder: Path) -> None:
        """Remove what is needed no more, unless a write waits that needs it."""
        if not self.tracker.outbox.waits_for(folder):
            shutil.rmtree(folder, ignore_errors=True)

    def fingerprint(self, session: Session) -> tuple[dict[str, Any], str]:
        """The machine and the runtime that measured, and their digest."""
        found = machine.fingerprint(session.describe())
        return found, machine.digest(found)


def open_tracker(options: Options) -> Tracker:
    """The store of a command, before any run exists.

    Raises:
        TrackingUnavailable: it cannot be reached or opened.
    """
    from netzip_mlflow.tracking import Tracker

    return Tracker(options.tracking_uri, options.experiment, say=options.warn)


@contextlib.contextmanager
def job(
    kind: str, name: str, options: Options, tracker: Tracker, *, join: str | None = None
) -> Iterator[Job]:
    """A parent run of `kind` and a work folder; both end however the block ends.

    `join`: the id of another process's parent run to work below, which it ends.

    What commands that were killed have left among the temporary files is removed first; everything
    that lands there until the end, lands in the work folder.

    When the tracking server goes away for good, the work folder is moved into the current folder
    (or stays where it is), and the error names it.

    Raises:
        NetzipError: the temporary folder cannot be written.
    """
    from netzip_mlflow.tracking import ended_by_signals

    try:
        folders.sweep()
        folder = folders.make()
    except OSError as error:
        raise NetzipError(f"no temporary folder can be made: {error}; set TMPDIR") from error
    try:
        parent = tracker.parent(kind, name, folder=folder)
        if join:
            parent = tracker.joined(kind, join, folder=folder)
        with ended_by_signals(), folders.temporary_files_in(folder), parent as run:
            yield Job(options, tracker, run, folder)
    except InputError as error:  # found only now: a run exists, so it is no longer status 2
        raise NetzipError(str(error)) from error
    finally:
        if tracker.keeps:
            folders.disown(folder)
        else:
            folders.remove(folder)


def describe_recipe(run: Run, recipe: Recipe, task: Task) -> None:
    """What a run depends on, on the run: params, the resolved recipe, the data set."""
    shown = without_secrets(recipe.model_dump(mode="json"))
    params = {f"recipe/{key}": value for key, value in flattened(shown)}
    run.log(
        params=params,
        tags={"netzip.recipe": recipe.name, "netzip.data_digest": task.digest, **version_tag()},
    )
    run.text(recipe.to_yaml(), "recipe.yaml")
    run.dataset(recipe.data.name or recipe.data.factory or "", task.digest, "test")


def version_tag() -> dict[str, str]:
    """Which netzip-mlflow wrote a run."""
    from importlib.metadata import version

    return {"netzip.version": version("netzip-mlflow")}


def flattened(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """A nested mapping as (path, plain value) pairs; None is left out, lists become text.

    A mapping below the first with a key that MLflow refuses in a name, or with very many, becomes
    text as a whole (JSON): the arguments of a user's own function may be called anything.
    """
    if not isinstance(value, dict):
        return [] if value is None or value == [] else [(prefix, value)]
    parts = [flattened(v, f"{prefix}/{k}" if prefix else str(k)) for k, v in value.items()]
    pairs = [pair for part in parts for pair in part]
    named = all(map(PARAM.fullmatch, value)) and all(len(key) <= PARAM_LENGTH for key, _ in pairs)
    return (
        pairs if not prefix or (named and len(value) <= PARAMS) else [(prefix, json.dumps(value))]
    )


def chosen(names: list[str], only: tuple[str, ...]) -> list[str]:
    """The candidates to make; `only` picks some of the recipe's.

    Raises:
        InputError: a name that the recipe has not.
    """
    problems = [
        Problem(
            "--only",
            f"{n!r} is no candidate of the recipe",
            ", ".join(names),
            did_you_mean(n, names),
        )
        for n in only
        if n not in names
    ]
    if problems:
        raise InputError(problems)
    return [n for n in names if not only or n in only]
