"""The command `search`: the best OCS within the constraint, with the evidence."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from netzip_mlflow.cache import StageCache
from netzip_mlflow.databases import without_password
from netzip_mlflow.recipe import SearchSpec
from netzip_mlflow.runs import baseline, candidates
from netzip_mlflow.runs.bench import Bench, context_of
from netzip_mlflow.runs.job import Job, Options, describe_recipe, job, open_tracker
from netzip_mlflow.search import binding, timing_lock
from netzip_mlflow.search import study as studies
from netzip_mlflow.search.leader import following, leader, leader_or_claim, leading
from netzip_mlflow.stages.search import notes, provenance, ray_workers
from netzip_mlflow.stages.search.objective import Trials
from netzip_mlflow.stages.search.reconcile import end_runs, take_over
from netzip_mlflow.stages.search.result import Found, finish
from netzip_mlflow.stages.search.setup import Request, first, limits_of, space_of
from netzip_mlflow.stages.search.workers import Crew, crew
from netzip_mlflow.tasks import open_task
from netzip_mlflow.tracking import asked_on_sigint

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runs.candidates import Candidate
    from netzip_mlflow.search.leader import Leader
    from netzip_mlflow.tasks import Task

__all__ = ["search_recipe"]

POLL_S = 0.5


def search_recipe(recipe: Recipe, options: Options, request: Request) -> Found | None:
    """Search a recipe's space; None where another process leads the study, and this one helped.

    Raises:
        InputError: bad input, before any run exists.
        NetzipError: the baseline failed, or every trial did.
    """
    timing_lock.check()
    spec = recipe.search or SearchSpec()
    recipe = recipe.model_copy(update={"search": spec})
    space_of(recipe)
    url = request.storage or default_storage(options.tracking_uri)
    tracker = open_tracker(options)  # first: its tables are what a shared database is known by
    storage = studies.open_storage(url)
    task = open_task(recipe.task, recipe.data, recipe.seed)
    name = request.study or f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    parts = provenance.parts(recipe, task, options.say)
    if request.restart:
        binding.start_over(storage, name)
    study = studies.create(storage, name, max(1, len(spec.objectives)))
    binding.bind(study, parts)
    end = time.monotonic() + (math.inf if spec.timeout is None else spec.timeout)
    if request.most is None:
        led = leader_or_claim(study)
    else:
        led = leader(study) if studies.progress(study).waiting else None
        if led is None:
            return None
    if led is not None:
        binding.bind(study, parts)  # of several that began at once one has bound it
        with job("search", recipe.name, options, tracker, join=led.run) as work:
            _help(work, recipe, task, study, led, end, request.most)
        return None
    if request.engine == "ray":
        ray_workers.connect(url, options.tracking_uri)
    with leading(study) as ready:
        binding.bind(study, parts)
        network = baseline.prepare(recipe, task)
        with job("search", recipe.name, options, tracker) as work:
            work.run.log(tags={"netzip.study": name, "netzip.storage": without_password(url)})
            describe_recipe(work.run, recipe, task)
            bench = _bench(work, recipe, task)
            origin = baseline.ready(bench, network)
            _bind(study, origin)
            candidates.inspect_and_judge(work, origin, None, recipe, task)
            trials = _trials(bench, origin, study, end)
            state = studies.plan(study, spec.trials, functools.partial(first, trials))
            study.sampler = studies.sampler(spec.sampler, recipe.seed + state.ended)
            take_over(work, study, origin.run.id)
            notes.begin(work, trials, without_password(url))
            ready(work.run.id, origin.run.id)
            with _helpers(work, recipe, request, study, url, end - time.monotonic()) as helpers:
                _lead(work, trials, helpers)
            studies.reclaim(study)  # what helpers were told to leave
            end_runs(work, study)
            return finish(trials, name, url)


def _help(
    work: Job,
    recipe: Recipe,
    task: Task,
    study: optuna.Study,
    led: Leader,
    end: float,
    most: int | None,
) -> None:
    """Make trials of a study that another process leads."""
    spec, bench = recipe.search or SearchSpec(), _bench(work, recipe, task)
    origin = baseline.joined(bench, led.baseline)
    _bind(study, origin)
    study.sampler = studies.sampler(spec.sampler, (recipe.seed + os.getpid()) % 2**31)
    trials = _trials(bench, origin, study, end)

    def stop() -> None:
        trials.end = -math.inf

    with following(study, stop), contextlib.suppress(studies.GivenBack):
        _walk(work, trials, most)


def _bind(study: optuna.Study, origin: Candidate) -> None:
    assert origin.twin is not None  # noqa: S101 (the baseline has one)
    binding.bind_baseline(study, origin.twin.digest())


def _helpers(
    work: Job, recipe: Recipe, request: Request, study: optuna.Study, url: str, seconds: float
) -> contextlib.AbstractContextManager[Crew | ray_workers.Tasks]:
    if request.engine == "ray":
        return ray_workers.tasks(work, recipe, study, url, seconds, search_recipe)
    return crew(work, recipe, request.workers, study.study_name, url, seconds)


def _bench(work: Job, recipe: Recipe, task: Task) -> Bench:
    cache = StageCache.open(allow=recipe.code()) if work.options.cache else None
    return Bench(work, recipe, task, cache=cache)


def _trials(bench: Bench, origin: Candidate, study: optuna.Study, end: float) -> Trials:
    return Trials(
        bench,
        origin,
        context_of(bench, origin),
        space_of(bench.recipe, bench.task.sizes["train"]),
        limits_of(bench.recipe),
        study,
        timing_lock.Quiet(),
        end,
    )


def _lead(work: Job, trials: Trials, helpers: Crew | ray_workers.Tasks) -> None:
    """Work until every trial has ended, here and elsewhere, or the time is over; with Ctrl-C it is
    over at once."""

    def stop() -> None:
        trials.end = -math.inf
        work.say("interrupted: going on to the end with the trials so far")

    with asked_on_sigint(stop):
        while trials.end > -math.inf:
            if helpers.leader_works:
                with contextlib.suppress(studies.GivenBack):
                    _walk(work, trials)
            state = studies.reclaim(trials.study)
            at_work = helpers.at_work()
            over = time.monotonic() >= trials.end or not state.waiting
            if over and not state.running and not at_work:
                return
            time.sleep(POLL_S)


def _walk(work: Job, trials: Trials, most: int | None = None) -> None:
    begun = itertools.count()

    def after(trial: FrozenTrial) -> None:
        trials.close(trial)
        notes.follow(work, trials, trial)

    def go_on() -> bool:
        return time.monotonic() < trials.end and (most is None or next(begun) < most)

    studies.work(trials.study, trials, go_on=go_on, after=after)


def default_storage(tracking_uri: str) -> str:
    """The study's database: beside a tracking store of sqlite, else in the current folder."""
    kind, _, file = tracking_uri.partition("?")[0].partition(":///")
    place = Path(file).parent if kind == "sqlite" and file else Path()
    return f"sqlite:///{place / 'netzip-search.db'}"
