"""The command `search`: the best OCS within the constraint, with the evidence."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from netzip_mlflow import scoring, search, techniques
from netzip_mlflow.cache import StageCache
from netzip_mlflow.databases import without_password
from netzip_mlflow.deployable import Exports
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.recipe import SearchSpec
from netzip_mlflow.report.searched import Winner
from netzip_mlflow.search import sizes, told
from netzip_mlflow.search import study as studies
from netzip_mlflow.search.leader import leader, leading
from netzip_mlflow.search.quiet import Quiet
from netzip_mlflow.stages import candidates, compress, ray_engine, searched
from netzip_mlflow.stages.crew import Crew, crew
from netzip_mlflow.stages.job import Job, Options, describe_recipe, job, open_tracker
from netzip_mlflow.stages.train import baseline, joined_baseline, prepare
from netzip_mlflow.stages.trial import Trials
from netzip_mlflow.tasks import open_task
from netzip_mlflow.tracking import asked_on_sigint
from netzip_mlflow.tracking.models import register

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.scoring import Choice
    from netzip_mlflow.search import Space
    from netzip_mlflow.stages.candidates import Candidate
    from netzip_mlflow.tasks import Task

__all__ = ["Found", "Request", "search_recipe", "space_of"]

ALIAS = "best-ocs"
POLL_S = 0.5
LOCKS = Path(tempfile.gettempdir()) / f"netzip-{getpass.getuser()}"


@dataclass(frozen=True)
class Request:
    """What the command line adds to the recipe's search section. `most`: help whoever leads the
    study with so many trials, and lead it never."""

    study: str | None = None
    storage: str | None = None
    workers: int = 1
    engine: str = "local"
    most: int | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What a search leaves behind. `trial` is the best feasible one's number, or that of the one
    that violates least; `outcome` the final comparison, `winner` who won it, if it was registered.
    """

    study: str
    storage: str
    trial: int | None
    feasible: bool
    trials: int
    outcome: compress.Outcome
    winner: Winner | None = None


def search_recipe(recipe: Recipe, options: Options, request: Request) -> Found | None:
    """Search a recipe's space; None where another process leads the study, and this one helped.

    Raises:
        InputError: bad input, before any run exists.
        NetzipError: the baseline failed, or every trial did.
    """
    spec = recipe.search or SearchSpec()
    recipe = recipe.model_copy(update={"search": spec})
    space_of(recipe)
    url = request.storage or default_storage(options.tracking_uri)
    tracker = open_tracker(options)  # first: its tables are what a shared database is known by
    storage = studies.open_storage(url)
    task = open_task(recipe.task, recipe.data, recipe.seed)
    name = request.study or f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    study = studies.create(storage, name, max(1, len(spec.objectives)))
    studies.bind(study, _digest(recipe))
    end = time.monotonic() + (math.inf if spec.timeout is None else spec.timeout)
    exports = Exports()
    led = leader(study)
    if request.most is not None and (led is None or not studies.progress(study).waiting):
        return None
    if led is not None:
        with job("search", recipe.name, options, tracker, join=led.run) as work:
            origin = joined_baseline(work, recipe, task, led.baseline, exports)
            study.sampler = studies.sampler(spec.sampler, (recipe.seed + os.getpid()) % 2**31)
            trials = _trials(work, recipe, task, origin, exports, study, end)
            with contextlib.suppress(studies.GivenBack):
                _walk(work, trials, request.most)
        return None
    if request.engine == "ray":
        ray_engine.connect(url, options.tracking_uri)
    network = prepare(recipe, task)
    with leading(study) as ready, job("search", recipe.name, options, tracker) as work:
        describe_recipe(work.run, recipe, task)
        work.run.log(tags={"netzip.study": name, "netzip.storage": without_password(url)})
        origin = baseline(work, recipe, task, network, exports)
        candidates.inspect_and_judge(work, origin, None, recipe, task)
        trials = _trials(work, recipe, task, origin, exports, study, end)
        new = not study.get_trials(deepcopy=False)
        state = studies.plan(study, spec.trials, _first(trials) if new else ())
        study.sampler = studies.sampler(spec.sampler, recipe.seed + state.ended)
        _take_over(work, study, origin.run.id)
        searched.begin(work, trials, without_password(url))
        ready(work.run.id, origin.run.id)
        with _helpers(work, recipe, request, study, url, end - time.monotonic()) as helpers:
            _lead(work, trials, helpers)
        studies.reclaim(study)  # what helpers were told to leave
        _end_runs(work, study)
        return _finish(work, trials, name, url, exports)


def _helpers(
    work: Job, recipe: Recipe, request: Request, study: optuna.Study, url: str, seconds: float
) -> contextlib.AbstractContextManager[Crew | ray_engine.Tasks]:
    if request.engine == "ray":
        return ray_engine.tasks(work, recipe, study, url, seconds)
    return crew(work, recipe, request.workers, study.study_name, url, seconds)


def _trials(
    work: Job,
    recipe: Recipe,
    task: Task,
    origin: Candidate,
    exports: Exports,
    study: optuna.Study,
    end: float,
) -> Trials:
    spec = recipe.search or SearchSpec()
    return Trials(
        work,
        recipe,
        task,
        origin,
        compress.context_of(work, recipe, task, origin, exports),
        space_of(recipe, task.sizes["train"]),
        _limits(recipe, spec),
        StageCache.open() if work.options.cache else None,
        study,
        Quiet(LOCKS),
        end,
    )


def _digest(recipe: Recipe) -> str:
    """Of all that a study's figures hang on; how long it goes on may change."""
    spec = (recipe.search or SearchSpec()).model_copy(
        update={"trials": 1, "timeout": None, "trial_timeout": None}
    )
    return recipe.model_copy(update={"search": spec}).digest()


def space_of(recipe: Recipe, samples: int | None = None) -> Space:
    """What a recipe's search chooses among; `samples`: there are so many to train on.

    Raises:
        InputError: the space is wrong, or empty.
    """
    spec = recipe.search or SearchSpec()
    entries = search.automatic(samples) if spec.space == "auto" else spec.space
    found = search.read(list(entries))
    problems = found if isinstance(found, list) else found.problems()
    if problems or isinstance(found, list):
        raise InputError(problems)
    return found


def _limits(recipe: Recipe, spec: SearchSpec) -> scoring.Constraints:
    score = recipe.score
    further = spec.limits.model_dump()
    return scoring.Constraints(score.max_drop_points, score.strict, **further)


def _first(trials: Trials) -> list[studies.Planned]:
    """What is tried before the sampler decides: the recipe's own candidates, as far as the space
    holds them; in the automatic space then what its techniques propose."""
    planned = []
    for name, entries in trials.recipe.candidates.items():
        parameters = trials.space.encode(entries)
        if parameters is None:
            trials.work.say(f"candidate {name} lies outside the space: compared at the end")
        else:
            planned.append(studies.Planned(name, parameters))
    if trials.recipe.search and trials.recipe.search.space == "auto":
        planned += [studies.Planned("", parameters) for parameters in _starts(trials)]
    known = {json.dumps(p.parameters, sort_keys=True): p for p in reversed(planned)}
    return [p for p in planned if known[json.dumps(p.parameters, sort_keys=True)] is p]


def _starts(trials: Trials) -> list[Mapping[str, Any]]:
    """Starting points by what they may bring for an epoch of training; those that this network
    cannot take are left out."""
    found = []
    for entries in search.starts(trials.task.sizes["train"]):
        parameters, chain = trials.space.encode(entries), techniques.chain(entries)
        if parameters is None:
            continue
        try:
            bound = trials.bound(chain) if sizes.known(chain) else None
        except NetzipError:
            continue
        except Exception:  # noqa: BLE001 (anyone's code: its trial will say what)
            bound = None
        epochs = sum(getattr(technique, "training_epochs", 0) for technique in chain)
        found.append(((bound or 0.0) / (1 + epochs), parameters))
    return [parameters for _, parameters in sorted(found, key=lambda f: -f[0])]


def _take_over(work: Job, study: optuna.Study, baseline: str) -> None:
    """Have the runs of an earlier part of the search stand below this one, as the database has
    them: a process that was killed may have told the one and not the other."""
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get(told.RUN) and trial.state.is_finished():
            status = "FINISHED" if told.made(trial) else ""
            work.run.adopt(trial.user_attrs[told.RUN], status, {"netzip.baseline": baseline})


def _end_runs(work: Job, study: optuna.Study) -> None:
    """End the runs whose worker died, as the database has them."""
    trials = study.get_trials(deepcopy=False)
    known = {t.user_attrs[told.RUN]: t for t in trials if told.RUN in t.user_attrs}
    of = f"tags.`netzip.parent` = '{work.run.id}' AND tags.`netzip.kind` = 'trial'"

    def call() -> None:
        client, home = work.run.client, work.run.experiment_id
        for run in client.search_runs([home], f"attributes.status = 'RUNNING' AND {of}"):
            trial = known.get(run.info.run_id)
            if trial is None or trial.state.is_finished():
                made = trial is not None and told.made(trial)
                client.set_terminated(run.info.run_id, "FINISHED" if made else "KILLED")

    work.run.deferred(call)


def _lead(work: Job, trials: Trials, helpers: Crew | ray_engine.Tasks) -> None:
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
        searched.follow(work, trials, trial)

    def go_on() -> bool:
        return time.monotonic() < trials.end and (most is None or next(begun) < most)

    studies.work(trials.study, trials, go_on=go_on, after=after)


def _finish(work: Job, trials: Trials, name: str, url: str, exports: Exports) -> Found:
    """The best few measured on test, beside the recipe's own candidates."""
    recipe, best = trials.recipe, told.ranked(told.ended(trials.study))
    spec = recipe.search or SearchSpec()
    if not best:
        raise NetzipError("no trial was judged: every one failed, or was stopped early")
    chosen = {f"trial-{t.number}": told.entries(t) for t in best[: spec.keep]}
    whole = recipe.model_copy(update={"candidates": {**recipe.candidates, **chosen}})
    outcome = compress.together(
        work, list(whole.candidates), trials.origin, whole, trials.task, exports, trials.cache
    )
    place = work.folder / "trials.csv"
    pd.DataFrame(told.rows(trials.study, spec.objectives)).to_csv(place, index=False)
    work.run.artifact(place)
    known_by_the_drop = not trials.limits.names()[1:]  # else only trials were judged by all limits
    wanted = outcome.choice.best if known_by_the_drop else f"trial-{best[0].number}"
    winner = next((c for c in outcome.candidates if c.name == wanted and c.measured), None)
    won = None
    if winner is not None and best[0].user_attrs[told.FEASIBLE]:
        _register(winner, recipe.name)
        why = _why(trials, winner.name, outcome.choice if known_by_the_drop else None)
        address = f"models:/{recipe.name}@{ALIAS}"
        won = Winner(winner.name, why, address, of_trials=not known_by_the_drop)
    searched.conclude(work, trials, outcome, won)
    return Found(
        name,
        url,
        best[0].number,
        bool(best[0].user_attrs[told.FEASIBLE]),
        studies.progress(trials.study).ended,
        outcome,
        won,
    )


def _why(trials: Trials, winner: str, choice: Choice | None) -> str:
    """Why this model is the winner; `choice`: of the comparison, where that decided."""
    if choice is None:
        return "the highest OCS on validation of the trials within every limit"
    own = trials.recipe.candidates.get(winner)
    if own is None:
        return choice.reason
    inside = trials.space.encode(own) is not None
    among = "which is a trial too" if inside else "which lies outside the space"
    return f"{choice.reason}; it is the recipe's own candidate, {among}"


def _register(winner: Candidate, name: str) -> None:
    """The winner in MLflow's registry, with what a reader of the registry must know of it."""
    found = winner.measured
    assert found is not None  # noqa: S101 (it was chosen by its measurement)
    drop = "accuracy/drop_points"
    shown = {
        f"netzip.{name}": f"{found.metrics[key]:.4g}"
        for name, key in (
            ("ocs", "score/ocs"),
            ("drop_points", drop),
            ("drop_points_low", f"{drop}_low"),
            ("drop_points_high", f"{drop}_high"),
        )
    }
    basis = {
        "netzip.basis": found.basis.label() if found.basis else "",
        "netzip.terms": found.terms,
    }
    tags = {**shown, **basis, "netzip.chain": winner.chain}
    register(winner.run, name, ALIAS, tags)


def default_storage(tracking_uri: str) -> str:
    """The study's database: beside a tracking store of sqlite, else in the current folder."""
    kind, _, path = tracking_uri.partition(":///")
    place = Path(path).parent if kind == "sqlite" and path else Path()
    return f"sqlite:///{place / 'netzip-search.db'}"
