"""A study in Optuna's database: the truth about which trials there are and what became of them.

The study owns the number of trials. Each is planned as a waiting trial with a slot of its own; a
worker takes the next one that waits. A trial whose process died is told as failed and its slot is
planned again with the same parameters, so that every slot ends once, whoever is killed when.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow import databases
from netzip_mlflow.errors import InputError, NetzipError, Problem
from netzip_mlflow.first_use import made_whole
from netzip_mlflow.processes import dead, me
from netzip_mlflow.search.outages import patiently, unanswered

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy import Engine

__all__ = [
    "ERROR",
    "NAME",
    "SLOT",
    "Failed",
    "GivenBack",
    "Planned",
    "Progress",
    "create",
    "ends_slot",
    "open_storage",
    "plan",
    "progress",
    "reclaim",
    "sampler",
    "work",
]

SLOT, NAME, ATTEMPT, BLAMELESS, OWNER, ERROR, PLANNED = (
    f"netzip.{part}"
    for part in ("slot", "name", "attempt", "blameless", "owner", "error", "planned")
)
ATTEMPTS = 3  # of a slot whose processes die
HEARTBEAT_S, GRACE_S = 30, 600  # a machine that is suspended for less goes on


class Failed(NetzipError):
    """A trial's own failure: its slot is spent, and the search goes on."""


class GivenBack(Exception):
    """A trial ends early, through no fault of its own: its slot waits again."""


@dataclass(frozen=True)
class Planned:
    """A trial to come: `parameters` fixes what it suggests (empty: the sampler decides)."""

    name: str = ""
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Progress:
    """How many slots there are, and how many of them wait, run, and have ended."""

    planned: int
    waiting: int
    running: int

    @property
    def ended(self) -> int:
        return self.planned - self.waiting - self.running


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage at a database's URL; its tables are made where there are none.

    Raises:
        InputError: the database cannot be reached, holds the tables of something else, or those of
            another version.
    """
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if (reason := databases.trouble(url)) is not None:
            raise _unusable(url, reason)
        waiting = {"timeout": 60} if url.startswith("sqlite") else databases.connect_args(url)
        made_whole(url, _make_tables)
        _only_ours(url)
        with _experimental():
            storage = optuna.storages.RDBStorage(
                url,
                engine_kwargs={"connect_args": waiting, "pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=_again,
            )
    except (StorageInternalError, SQLAlchemyError, ValueError, ImportError, RuntimeError) as error:
        raise _unusable(url, str(error).strip().splitlines()[0]) from error
    if storage.engine.dialect.name == "sqlite":
        _one_writer_at_a_time(storage.engine)
    return storage


def _unusable(url: str, reason: str) -> InputError:
    shown = databases.without_password(url)
    what = f"{shown} cannot be used: {databases.without_password(reason, url)}"
    return InputError(Problem("storage", what, "a database's URL"))


def _make_tables(url: str) -> None:
    """Optuna's. Of sqlite in the mode that `_one_writer_at_a_time` asks for: to change to it takes
    a moment in which nobody else reads."""
    import optuna
    import sqlalchemy

    storage = optuna.storages.RDBStorage(url, {"poolclass": sqlalchemy.NullPool})
    if storage.engine.dialect.name == "sqlite":
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")


def _only_ours(url: str) -> None:
    """MLflow and Optuna both count versions in `alembic_version`, and spoil each other's.

    Raises:
        InputError: there is such a table, and no studies.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    tables = sqlalchemy.inspect(engine).get_table_names()
    if "alembic_version" in tables and "studies" not in tables:
        raise _unusable(
            url,
            "it holds the tables of something else (MLflow's?); give studies a database of their "
            "own, or a schema of their own: ...?options=-csearch_path%3DSCHEMA",
        )


def create(storage: RDBStorage, name: str, objectives: int = 1) -> optuna.Study:
    """The study of that name, made where there is none. One process does it before others start.

    Raises:
        InputError: the study there does not maximise so many values.
    """
    import optuna
    from optuna.study import StudyDirection

    directions = [StudyDirection.MAXIMIZE] * objectives
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=directions,
        load_if_exists=True,
    )
    if study.directions != directions:
        raise InputError(Problem(f"study {name!r}", "was made by something else", "another name"))
    return study


def sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler by the recipe's name for it."""
    from optuna import samplers

    with _experimental():
        if name == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        made = {
            "gp": samplers.GPSampler,
            "nsga2": samplers.NSGAIISampler,
            "random": samplers.RandomSampler,
        }
        return made[name](seed=seed)


def plan(
    study: optuna.Study, wanted: int, first: Callable[[], Sequence[Planned]] = tuple
) -> Progress:
    """Have `wanted` slots in all: `first` gives the first ones, and is asked once in a study's life
    (again, if a process died while it planned).

    Trials that ran in a process of this machine which is dead are told as failed, and slots that
    were lost that way wait again. For the process that leads the search, before workers start.
    """
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if dead(trial.user_attrs.get(OWNER)):
            study.tell(trial.number, state=TrialState.FAIL)
    slots = _slots(study.get_trials(deepcopy=False))
    for trials in slots.values():
        if not any(map(ends_slot, trials)):
            _again(study, trials[-1])
    missing = range(len(slots), wanted)
    known = first() if missing and not study.user_attrs.get(PLANNED) else ()
    for slot in missing:
        given = known[slot] if slot < len(known) else Planned()
        attributes = {SLOT: slot} | ({NAME: given.name} if given.name else {})
        study.enqueue_trial(dict(given.parameters or {}), user_attrs=attributes)
    if missing:
        study.set_user_attr(PLANNED, True)
    return progress(study)


def reclaim(study: optuna.Study) -> Progress:
    """As `plan`, for all slots that there are; trials of other machines by their heartbeats."""
    import optuna

    with _experimental():
        optuna.storages.fail_stale_trials(study)
    return plan(study, 0)


def progress(study: optuna.Study) -> Progress:
    """How far the study has come."""
    from optuna.trial import TrialState

    slots = _slots(study.get_trials(deepcopy=False))
    states = [{t.state for t in trials} for trials in slots.values()]
    return Progress(
        len(slots),
        sum(TrialState.WAITING in s for s in states),
        sum(TrialState.RUNNING in s and TrialState.WAITING not in s for s in states),
    )


def work(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float | Sequence[float]],
    *,
    go_on: Callable[[], bool] = lambda: True,
    after: Callable[[FrozenTrial], None] = lambda _trial: None,
    say: Callable[[str], None] = lambda _line: None,
) -> None:
    """Take one waiting trial after the other, until none waits or `go_on` says no.

    `objective` raises `Failed` for a trial that cannot be made. `after` is called with each trial
    that has ended, when the database knows it. A trial at which the database does not answer costs
    an attempt of its slot, which waits again when there are answers.

    Raises:
        GivenBack: and everything else but `Failed`; the slot waits again. What ends the process
            (Ctrl-C, SIGTERM) and `GivenBack` cost it no attempt.
    """

    taken: list[optuna.Trial] = []  # the one at work
    stops: list[BaseException] = []  # what ended it: Optuna forgets it where it cannot tell it

    def owned(trial: optuna.Trial) -> float | Sequence[float]:
        if SLOT not in trial.user_attrs:  # the last one that waited went to another worker
            raise _Surplus
        taken.append(trial)
        try:
            trial.set_user_attr(OWNER, me())
            return objective(trial)
        except Failed as error:
            trial.set_user_attr(ERROR, str(error)[:2000])
            raise
        except BaseException as stop:
            stops.append(stop)
            if _blameless(stop):
                trial.set_user_attr(BLAMELESS, True)
            raise

    def ended(_study: optuna.Study, trial: FrozenTrial) -> None:
        if SLOT in trial.user_attrs:
            after(trial)

    while go_on() and patiently(lambda: progress(study), say).waiting:
        taken.clear()
        stops.clear()
        try:
            study.optimize(owned, n_trials=1, catch=(Failed, _Surplus), callbacks=[ended])
        except BaseException as error:
            causes = [*_causes(error), *stops]
            _give_back(study, taken, causes, say)
            if not any(isinstance(cause, unanswered()) for cause in causes):
                raise


@contextlib.contextmanager
def _experimental() -> Iterator[None]:
    """What of Optuna may change between its versions (we pin them) is not warned of."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _one_writer_at_a_time(engine: Engine) -> None:
    """Have sqlite lock when a transaction begins.

    Otherwise two workers may read that a trial waits before one of them writes that it runs, and
    both take it: sqlite has no SELECT ... FOR UPDATE, which is what Optuna counts on there.
    """
    from sqlalchemy import event

    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late
        connection.execute("PRAGMA journal_mode=WAL")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # connections that were made before


def _give_back(
    study: optuna.Study,
    taken: Sequence[optuna.Trial],
    causes: Sequence[BaseException],
    say: Callable[[str], None],
) -> None:
    """Have what was at work wait again.

    Raises:
        BaseException: what ends the process, where it is among the causes.
    """
    signal = next((cause for cause in causes if not isinstance(cause, Exception)), None)

    def leave() -> None:
        _leave(study, taken, signal or causes[0])
        plan(study, 0)

    if signal is None:
        patiently(leave, say)
        return
    with contextlib.suppress(*unanswered()):  # the end of this process says it then
        leave()
    raise signal


def _leave(study: optuna.Study, taken: Sequence[optuna.Trial], stop: BaseException) -> None:
    """Tell that trials are not at work any more; of what ends a process Optuna tells Ctrl-C."""
    from optuna.trial import TrialState

    running = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
    left = {trial.number for trial in running}
    for trial in taken:
        if trial.number in left:
            if _blameless(stop):
                trial.set_user_attr(BLAMELESS, True)
            study.tell(trial.number, state=TrialState.FAIL)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what was being handled when it came up."""
    while error is not None:
        yield error
        error = error.__context__


def _blameless(stop: BaseException) -> bool:
    """Whether a trial ends through no fault of its own: its time is over, or its process ends."""
    return isinstance(stop, GivenBack) or not isinstance(stop, Exception)


class _Surplus(Exception):
    """A trial that was not planned."""


def _again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Plan a lost trial's slot once more, with its parameters and nothing else of it."""
    attempt = trial.user_attrs.get(ATTEMPT, 1) + (BLAMELESS not in trial.user_attrs)
    if SLOT not in trial.user_attrs or attempt > ATTEMPTS:
        return
    kept = {key: trial.user_attrs[key] for key in (SLOT, NAME) if key in trial.user_attrs}
    study.enqueue_trial(trial.params, user_attrs={**kept, ATTEMPT: attempt})


def _slots(trials: Iterable[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    found: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        if SLOT in trial.user_attrs:
            found.setdefault(trial.user_attrs[SLOT], []).append(trial)
    return found


def ends_slot(trial: FrozenTrial) -> bool:
    """Whether nothing more is to be planned for its slot."""
    from optuna.trial import TrialState

    lost = trial.state == TrialState.FAIL and ERROR not in trial.user_attrs
    if lost and BLAMELESS in trial.user_attrs:
        return False
    return not lost or trial.user_attrs.get(ATTEMPT, 1) >= ATTEMPTS
