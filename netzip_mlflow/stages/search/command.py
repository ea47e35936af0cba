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
from netzip_mlflow.search.outages import patiently
from netzip_mlflow.stages.search import notes, provenance, ray_workers
from netzip_mlflow.stages.search.objective import Trials
from netzip_mlflow.stages.search.reconcile import end_runs, take_over
from netzip_mlflow.stages.search.result import Found, finish
from netzip_mlflow.stages.search.setup import Request, first, limits_of, space_of
from netzip_mlflow.stages.search.workers import Crew, crew
from netzip_mlflow.tasks import open_task
from netzip_mlflow.tracking import asked_on_sigint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import optuna
    from optuna.storages import RDBStorage
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
    network = functools.cache(functools.partial(baseline.prepare, recipe, task))
    parts = provenance.parts(recipe, task, network, options.say)
    name = request.study or f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    end = time.monotonic() + (math.inf if spec.timeout is None else spec.timeout)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(contextlib.closing(timing_lock.TimingLock()))
        if request.engine == "ray":
            stack.enter_context(ray_workers.cluster(url, options.tracking_uri))
        if request.restart:
            network()  # what is wrong with it is said before a study is forgotten
            binding.start_over(storage, name)
        begin = functools.partial(_begin, storage, name, spec, parts, request.most)
        try:
            study, led = begin()
        except KeyError:  # another process has started the study over meanwhile
            study, led = begin()
        if led is not None:
            binding.bind(study, parts)  # of several that began at once one has bound it
            with job("search", recipe.name, options, tracker, join=led.run) as work:
                _help(_bench(work, recipe, task), study, led, lock, end, request.most)
            return None
        if request.most is not None:
            return None
        with leading(study) as ready:
            binding.bind(study, parts)
            network()
            with job("search", recipe.name, options, tracker) as work:
                tags = {"netzip.study": name, "netzip.storage": without_password(url)}
                work.run.log(tags=tags)
                describe_recipe(work.run, recipe, task)
                bench = _bench(work, recipe, task)
                origin = baseline.ready(bench, network())
                _bind(study, origin)
                candidates.inspect_and_judge(origin, None, bench.conditions)
                trials = _trials(bench, origin, study, lock, end)
                return _search(trials, ready, request, url)


def _begin(
    storage: RDBStorage, name: str, spec: SearchSpec, parts: Mapping[str, str], most: int | None
) -> tuple[optuna.Study, Leader | None]:
    """The study, and who leads it; who has `most` trials to make never does."""
    study = studies.create(storage, name, max(1, len(spec.objectives)))
    binding.bind(study, parts)
    if most is None:
        return study, leader_or_claim(study)
    return study, leader(study) if studies.progress(study).waiting else None


def _search(trials: Trials, ready: Callable[[str, str], None], request: Request, url: str) -> Found:
    """Plan the trials, have all of them made, and measure the best few."""
    work, recipe, study, origin = trials.work, trials.recipe, trials.study, trials.origin
    spec = recipe.search or SearchSpec()
    state = studies.plan(study, spec.trials, functools.partial(first, trials))
    study.sampler = studies.sampler(spec.sampler, recipe.seed + state.ended)
    take_over(work, study, origin.run.id)
    notes.begin(work, trials, without_password(url))
    ready(work.run.id, origin.run.id)
    seconds = trials.end - time.monotonic()
    with _helpers(work, recipe, request, study, url, seconds) as helpers:
        _lead(work, trials, helpers)
    studies.reclaim(study)  # what helpers were told to leave
    end_runs(work, study)
    return finish(trials, study.study_name, url)


def _help(
    bench: Bench,
    study: optuna.Study,
    led: Leader,
    lock: timing_lock.TimingLock,
    end: float,
    most: int | None,
) -> None:
    """Make trials of a study that another process leads."""
    recipe = bench.recipe
    spec = recipe.search or SearchSpec()
    origin = baseline.joined(bench, led.baseline)
    _bind(study, origin)
    study.sampler = studies.sampler(spec.sampler, (recipe.seed + os.getpid()) % 2**31)
    trials = _trials(bench, origin, study, lock, end)

    def stop() -> None:
        trials.end = -math.inf

    with following(study, stop), contextlib.suppress(studies.GivenBack):
        _walk(bench.job, trials, most)


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


def _trials(
    bench: Bench,
    origin: Candidate,
    study: optuna.Study,
    lock: timing_lock.TimingLock,
    end: float,
) -> Trials:
    return Trials(
        bench,
        origin,
        context_of(bench, origin),
        space_of(bench.recipe, bench.task.sizes["train"]),
        limits_of(bench.recipe),
        study,
        lock,
        end,
    )


def _lead(work: Job, trials: Trials, helpers: Crew | ray_workers.Tasks) -> None:
    """Work until every trial has ended, here and elsewhere, or the time is over; with Ctrl-C it is
    over at once."""

    def stop() -> None:
        trials.end = -math.inf
        work.say("interrupted: going on to the end with the trials so far")

    def look() -> tuple[studies.Progress, bool]:
        return studies.reclaim(trials.study), helpers.at_work()

    with asked_on_sigint(stop):
        while trials.end > -math.inf:
            if helpers.leader_works:
                with contextlib.suppress(studies.GivenBack):
                    _walk(work, trials)
            state, at_work = patiently(look, work.say)
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

    studies.work(trials.study, trials, go_on=go_on, after=after, say=work.say)


def default_storage(tracking_uri: str) -> str:
    """The study's database: beside a tracking store of sqlite, else in the current folder."""
    kind, _, file = tracking_uri.partition("?")[0].partition(":///")
    place = Path(file).parent if kind == "sqlite" and file else Path()
    return f"sqlite:///{place / 'netzip-search.db'}"
