"""A study's trials as tasks of Ray: each joins the study as another machine's command would.

The study owns its trials, so that a task is the same however often it is started: it makes a few of
those that wait. What was being made on a node that dies waits again (`study.reclaim`), and Ray
starts that node's task elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from netzip_mlflow.errors import InputError, NetzipError, Problem
from netzip_mlflow.recipe import variables
from netzip_mlflow.runs.job import Options
from netzip_mlflow.search import study as studies
from netzip_mlflow.stages.search.setup import Request
from netzip_mlflow.training import cores

if TYPE_CHECKING:
    import optuna

    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runs.job import Job

__all__ = ["Assignment", "Tasks", "check_addresses", "cluster", "make_trials", "tasks"]

TRIALS = 5  # of one task: joining a study takes seconds, which these share
RETRIES = 3  # of a task whose node dies
FAILURES = 3  # of tasks, one after the other: then the search fails
CONNECT_S = 5.0
PATIENCE_S = 20.0  # for tasks that were told to end
OBJECTS_BYTES = 100 * 1024**2  # for a Ray that is started here; tasks hand nothing to each other

Search = Callable[["Recipe", Options, Request], object]


@dataclass(frozen=True)
class Assignment:
    """What a task needs to know on whatever node it runs; `end` is by the clock on the wall,
    `variables` those that the recipe's paths name, for a node that has none of its own."""

    recipe: Recipe
    study: str
    storage: str
    tracking_uri: str
    experiment_id: str
    cache: bool
    folder: str
    end: float
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Tasks:
    """The tasks of a search; `start` begins another one."""

    work: Job
    study: optuna.Study
    assignment: Assignment
    start: Any  # () -> Ray's reference to it
    begun: list[Any] = field(default_factory=list)
    failures: int = 0
    known: int = 0

    leader_works = False

    def at_work(self) -> bool:
        """Whether any has not ended yet; there are as many as the study has trials for.

        Raises:
            NetzipError: they fail, one after the other.
        """
        for reference in self._ended(0):
            self._judge(reference)
        state = studies.progress(self.study)
        if state.ended != self.known:
            self.known = state.ended
            self.work.say(f"{state.ended} of {state.planned} trials")
        if time.time() < self.assignment.end:
            wanted = state.running + math.ceil(state.waiting / TRIALS)
            self.begun += [self.start() for _ in range(wanted - len(self.begun))]
        return bool(self.begun)

    def stop(self) -> None:
        """Tell all to end, as Ctrl-C would: their trials wait again."""
        import ray

        for reference in self.begun:
            ray.cancel(reference)
        self._ended(PATIENCE_S)
        for reference in self.begun:
            ray.cancel(reference, force=True)

    def _ended(self, seconds: float) -> list[Any]:
        """Those that end within some seconds; they are no longer `begun`."""
        import ray

        if not self.begun:
            return []
        ended, self.begun = ray.wait(self.begun, num_returns=len(self.begun), timeout=seconds)
        return ended

    def _judge(self, reference: Any) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            ray.get(reference)
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            self.work.say(f"a task of Ray failed: {reason}")
            self.failures += 1
            if self.failures >= FAILURES:
                raise NetzipError(f"Ray's tasks fail, the last one with: {reason}") from error
        else:
            self.failures = 0


@contextlib.contextmanager
def cluster(*addresses: str) -> Iterator[None]:
    """The cluster that RAY_ADDRESS names, joined while the block lasts; where it names none, a Ray
    on this machine.

    Args:
        addresses: what the cluster's nodes must reach.

    Raises:
        InputError: Ray is not installed, the cluster does not answer, or its nodes cannot reach
            an address.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        hint = "pip install 'netzip-mlflow[ray]'"
        what = "ray is not installed here"
        raise InputError(Problem("--engine ray", what, "--engine local", hint)) from error
    given = os.environ.get("RAY_ADDRESS")
    if given:
        _answering(given)
    own: dict[str, Any] = {
        "num_cpus": cores(),
        "object_store_memory": OBJECTS_BYTES,
        "include_dashboard": False,
    }
    try:
        ray.init(
            given or "local",
            logging_level=logging.ERROR,
            log_to_driver=False,
            **({} if given else own),
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise _unusable(given or "a local Ray", str(error).strip().splitlines()[0]) from error
    try:
        check_addresses({node["NodeManagerHostname"] for node in _nodes()}, addresses)
        yield
    finally:
        ray.shutdown()


def _answering(address: str) -> None:
    """Raise where nobody listens, which Ray would wait for during minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        if place.hostname is not None and place.port is not None:  # `auto` has none
            socket.create_connection((place.hostname, place.port), CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise _unusable(address, str(error)) from error


def _unusable(address: str, reason: str) -> InputError:
    what = f"{address} cannot be used: {reason}"
    return InputError(Problem("RAY_ADDRESS", what, "a cluster's address; unset"))


def check_addresses(hosts: Collection[str], addresses: Collection[str]) -> None:
    """Where there are several machines, an address must not mean another thing on each.

    Raises:
        InputError: it names a file or a folder.
    """
    files = [url for url in addresses if urlsplit(url).scheme in ("", "file", "sqlite")]
    if len(hosts) > 1 and files:
        raise InputError(
            Problem(
                "--engine ray",
                f"the cluster has {len(hosts)} machines, and {', '.join(files)} is on one of them",
                "--storage postgresql+psycopg://... and --tracking-uri http://...",
            )
        )


@contextlib.contextmanager
def tasks(
    work: Job,
    recipe: Recipe,
    study: optuna.Study,
    storage: str,
    seconds: float,
    search_recipe: Search,
) -> Iterator[Tasks]:
    """The tasks of a search, on the cluster that was joined; none outlives the block.

    A task takes as many CPUs as `train.threads` says (a whole node where it says nothing, since it
    then computes on all cores), and a GPU where `train.device` is cuda.

    Args:
        seconds: after which they begin no trial.
        search_recipe: the command, which each task calls as another process would.
    """
    import ray

    train = recipe.train
    sizes = [node["Resources"]["CPU"] for node in _nodes() if node["Resources"].get("CPU")]
    cpus = (train.threads if train else None) or min(sizes, default=1)
    gpus = 1 if train and train.device == "cuda" else 0
    if not any(size >= cpus for size in sizes):
        work.say(f"no node of the cluster has {cpus:g} CPUs: waiting for one")
    assignment = Assignment(
        recipe,
        study.study_name,
        storage,
        work.options.tracking_uri,
        work.run.experiment_id,
        work.options.cache,
        str(Path.cwd()),
        time.time() + seconds,
        _variables(recipe),
    )
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(make_trials)
    found = Tasks(work, study, assignment, lambda: task.remote(assignment, search_recipe))
    work.say(f"Ray: {len(sizes)} nodes, {sum(sizes):g} CPUs; a task takes {cpus:g}")
    try:
        yield found
    finally:
        found.stop()
        ray.shutdown()


def make_trials(assignment: Assignment, search_recipe: Search) -> None:
    """A task: some of the trials that wait; none where nobody leads the study any more."""
    with contextlib.suppress(OSError):  # a node may have other folders
        os.chdir(assignment.folder)
    os.environ.pop("MLFLOW_RUN_ID", None)  # of a local Ray: that run is the leader's
    os.environ["MLFLOW_EXPERIMENT_ID"] = assignment.experiment_id
    os.environ.update({k: v for k, v in assignment.variables.items() if k not in os.environ})
    recipe, left = assignment.recipe, assignment.end - time.time()
    if left <= 0:
        return
    if recipe.search is not None and not math.isinf(left):
        spec = recipe.search.model_copy(update={"timeout": left})
        recipe = recipe.model_copy(update={"search": spec})
    options = Options(assignment.tracking_uri, command="a task of Ray", cache=assignment.cache)
    search_recipe(recipe, options, Request(assignment.study, assignment.storage, most=TRIALS))


def _variables(recipe: Recipe) -> dict[str, str]:
    paths = filter(None, (recipe.data.path, recipe.model.weights))
    return {name: os.environ[name] for path in paths for name in variables(path)}


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]
