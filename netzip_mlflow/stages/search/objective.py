"""One trial of a search: a chain that the space suggests, walked, judged on validation, told."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netzip_mlflow import measuring, scoring, techniques
from netzip_mlflow.errors import NetzipError
from netzip_mlflow.runs import candidates
from netzip_mlflow.search import early_stopping, records, sizes
from netzip_mlflow.search.outages import unanswered
from netzip_mlflow.search.study import Failed, GivenBack
from netzip_mlflow.stages.search.sizing import Untrained
from netzip_mlflow.tasks import OutOfReach
from netzip_mlflow.tracking import Killed, stopped

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from netzip_mlflow.metrics.family import Conditions
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runs.bench import Bench
    from netzip_mlflow.runs.candidates import Candidate
    from netzip_mlflow.runs.job import Job
    from netzip_mlflow.search import Space
    from netzip_mlflow.search.timing_lock import TimingLock
    from netzip_mlflow.tasks import Task
    from netzip_mlflow.techniques import Context, Technique

__all__ = ["Trials"]

DROP = "validation/accuracy/drop_points"
HIGH = f"{DROP}_high"
DISK = "size/disk_bytes"
MARGIN = 1.002  # of a file's size: what in it hangs on the weights' values
BOUND = "bound"  # a constraint beside the limits: that a trial could become the best


class Stopped(Exception):
    """A trial that can no longer keep its limits; `known`: its figures that say so, by key."""

    def __init__(self, when: str, what: str, known: Mapping[str, float]) -> None:
        super().__init__(f"stopped {when}: {what}")
        self.known = known

    @classmethod
    def by_drop(cls, when: str, drop: float) -> Stopped:
        """One whose least drop is already too many points."""
        return cls(when, f"{drop:.2f} points below the baseline", {DROP: drop, HIGH: drop})


@dataclass(eq=False)
class Trials:
    """What all trials of a process share; called with each of Optuna's trials."""

    bench: Bench
    origin: Candidate
    context: Context
    space: Space
    limits: scoring.Constraints
    study: optuna.Study
    timing_lock: TimingLock
    end: float  # by time.monotonic; a trial that is not done by then is given back
    made: dict[int, Candidate] = field(default_factory=dict)

    @property
    def work(self) -> Job:
        """The command at work."""
        return self.bench.job

    @property
    def recipe(self) -> Recipe:
        """What is searched."""
        return self.bench.recipe

    @property
    def task(self) -> Task:
        """With its data opened."""
        return self.bench.task

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """The trial's OCS on validation, or its objectives; its constraints are set.

        Raises:
            Failed: the chain cannot be made, or not within `trial_timeout`.
            GivenBack: the search's time is over.
            TrialPruned: it cannot become better than the best, by its bound.
        """
        with self.timing_lock.working():
            try:
                return self._walked(trial)
            finally:
                if trial.number in self.made:
                    self.work.release(self.made[trial.number].folder)

    def _walked(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        from optuna.exceptions import TrialPruned

        entries = self.space.suggest(trial)
        chain = techniques.chain(entries)
        label = techniques.label(chain)
        tags = {"netzip.baseline": self.origin.run.id, "netzip.trial": str(trial.number)}
        name = f"trial-{trial.number}"
        made = candidates.start(self.work, name, label, tags, kind="trial")
        self.made[trial.number] = made
        params = dict(candidates.parameters(chain))
        made.run.log(params={"technique/trial": trial.number, **params})
        self.work.say(f"{name}: {label}")
        try:
            trial.set_user_attr(records.RUN, made.run.id)
            trial.set_user_attr(records.CHAIN, label)
            trial.set_user_attr(records.ENTRIES, json.dumps(entries, sort_keys=True))
            return self._tried(trial, made, chain)
        except TrialPruned:
            raise
        except (GivenBack, KeyboardInterrupt, Killed):
            candidates.give_up(made, "not ended: the time was over, or the search was interrupted")
            raise
        except unanswered():
            candidates.give_up(made, "not ended: the study's database did not answer")
            raise
        except Exception as error:  # a technique may be anyone's code; its run says what
            if (stop := stopped()) is not None:  # and this is what became of it in there
                candidates.give_up(made, "not ended: the search was interrupted")
                raise stop from error
            candidates.fail(made, error)
            self.work.say(f"{name} failed: {made.error}")
            raise Failed(made.error) from error

    def close(self, trial: FrozenTrial) -> None:
        """When the database knows a trial's end, its run ends too (a failed one's has)."""
        made = self.made.pop(trial.number, None)
        if made is not None and not made.error:
            candidates.finish(made)

    def _tried(
        self, trial: optuna.Trial, made: Candidate, chain: Sequence[Technique]
    ) -> float | tuple[float, ...]:
        known = records.same(records.ended(self.study), trial.user_attrs[records.ENTRIES])
        if known is not None:
            self._explain(trial, made, f"{records.SAME} {known.number}")
            violations = json.loads(known.user_attrs[records.VIOLATIONS])
            ratios = json.loads(known.user_attrs[records.RATIOS])
            return self._told(trial, violations, known.user_attrs[records.OCS], ratios)
        if sizes.known(chain):
            self._skip_by_bound(trial, made, chain)
        origin = self.origin.twin
        assert origin is not None  # noqa: S101 (the baseline has one)
        try:
            stop = None if self.best() is None else self.hindrance(chain)
            if stop is not None:
                raise stop
            context = self._watched(made)
            made_file = candidates.walk(
                made, chain, origin, context, self.bench.cache, self.work.say
            )
            made.file = made_file.save(made.folder)
            metrics = self._judged(made, context.progress)
        except Stopped as stop:
            self._explain(trial, made, str(stop))
            made.run.log({key: value for key, value in stop.known.items() if key != HIGH})
            return self._told(trial, self._violations(stop.known), 0.0, {})
        made.run.log(metrics)
        trial.set_user_attr(records.DROP, records.drop(metrics))
        ratios = {
            key: metrics[f"{before}ratio/{key}"]
            for before, key in (("validation/", "P"), ("", "S"), ("", "C"))
            if f"{before}ratio/{key}" in metrics
        }
        violations = self._violations(metrics)
        return self._told(trial, violations, metrics["validation/score/ocs"], ratios)

    def _judged(self, made: Candidate, progress: Callable[[str, float], None]) -> dict[str, float]:
        """Sizes, operations, accuracy on validation; latency where a limit or the basis wants it
        and everything else is within its limits.

        Raises:
            Stopped: so many answers are wrong already that the rest cannot help.
        """
        assert made.file is not None  # noqa: S101 (stored before)
        assert self.origin.measured is not None  # noqa: S101 (judged before)
        made.measured = found = measuring.inspect(made.name, made.file, self.conditions)
        baseline = self.origin.measured.copy()
        accuracy = baseline.metrics[f"validation/accuracy/{self.task.primary}"]
        least = self.limits.least(accuracy)
        watched = dataclasses.replace(self.conditions, progress=progress)
        try:
            measuring.judge(found, baseline, watched, ("validation",), at_least=least)
        except OutOfReach as known:
            drop = 100 * (accuracy - min(known.accuracy, known.at_best))
            raise Stopped.by_drop(f"after {known.seen} images of validation", drop) from known
        untimed = {
            k: v for k, v in self._violations(found.metrics).items() if k not in scoring.TIMED
        }
        scored_by_clock = measuring.needs_timing(self.recipe.score)
        timed = self.limits.timed or scored_by_clock
        if timed and all(excess <= 0 for excess in untimed.values()):
            with self.timing_lock.alone() as quiet:
                measuring.time_together([baseline, found], self.conditions)
            found.flags += [] if quiet else ["noisy"]
            if found.fault:
                raise NetzipError(found.fault)
        if not scored_by_clock or "ratio/its" in found.metrics:
            measuring.grade(found, baseline, self.bench.basis, self.limits)
        else:
            found.metrics["validation/score/ocs"] = 0.0  # outside a limit: never ranked by it
        if made.seconds is not None:
            found.metrics["compress/seconds"] = made.seconds
        return found.metrics

    def _violations(self, metrics: Mapping[str, float]) -> dict[str, float]:
        assert self.origin.measured is not None  # noqa: S101 (judged before)
        return self.limits.violations(self.origin.measured.metrics, metrics)

    def _told(
        self,
        trial: optuna.Trial,
        violations: Mapping[str, float],
        ocs: float,
        ratios: Mapping[str, float],
    ) -> float | tuple[float, ...]:
        """Every constraint, last and once: a trial without them counts as feasible. Samplers rank
        by their sum: where one is broken, those of which nothing is known add nothing to it."""
        feasible = all(excess <= 0 for excess in violations.values())
        trial.set_user_attr(records.VIOLATIONS, json.dumps(violations))
        if ratios:
            trial.set_user_attr(records.RATIOS, json.dumps(ratios))
        trial.set_user_attr(records.OCS, ocs)
        trial.set_user_attr(records.FEASIBLE, feasible)
        run = self.made[trial.number].run
        run.log({"validation/score/feasible": float(feasible)})
        trial.set_user_attr(
            records.RUN, run.id
        )  # it may have been made only now: see tracking.Outbox
        broken = any(0 < excess < math.inf for excess in violations.values())
        for name, excess in violations.items():
            trial.set_constraint(name, 0.0 if broken and excess == math.inf else excess)
        trial.set_constraint(BOUND, 0.0)
        objectives = self.recipe.search.objectives if self.recipe.search else ()
        return tuple(ratios.get(key, 0.0) for key in objectives) if objectives else ocs

    def _explain(self, trial: optuna.Trial, made: Candidate, reason: str) -> None:
        """Why a trial ended before its time."""
        trial.set_user_attr(records.REASON, reason)
        made.note(reason)
        made.run.log(tags={"netzip.reason": reason})
        self.work.say(f"{made.name}: {reason}")

    def _skip_by_bound(
        self, trial: optuna.Trial, made: Candidate, chain: Sequence[Technique]
    ) -> None:
        """End a trial whose size and operations say that it cannot become the best.

        Samplers are told by how much, in the scale of the limits: they would else take it for as
        good as a feasible one.

        Raises:
            TrialPruned: then; its constraints are set, as far as they are known.
        """
        from optuna.exceptions import TrialPruned

        best = self.best()
        bound = None if best is None else self.bound(chain)
        if best is None or bound is None or bound > best:
            return
        self._explain(trial, made, f"skipped: OCS at most {bound:.3f}, best so far {best:.3f}")
        trial.set_user_attr(records.RUN, made.run.id)
        for name in self.limits.names():
            trial.set_constraint(name, 0.0)
        trial.set_constraint(BOUND, (best - bound) / max(best, 1.0))
        raise TrialPruned

    def bound(self, chain: Sequence[Technique]) -> float | None:
        """The highest OCS of a chain whose size is known before its training; None where a bound
        is not exact: another basis, or more objectives than one."""
        basis = self.bench.basis
        known = basis.speed in scoring.KNOWN_SPEEDS and basis.size in scoring.KNOWN_SIZES
        if not known or (self.recipe.search and self.recipe.search.objectives):
            return None
        assert self.origin.measured is not None  # noqa: S101 (judged before)
        found = self.untrained.sizes(chain)
        return scoring.ocs_bound(
            self.origin.measured.metrics,
            {**found, basis.size_key: found[basis.size_key] / MARGIN},
            basis,
            max_drop_points=self.limits.max_drop_points,
        )

    def hindrance(self, chain: Sequence[Technique]) -> Stopped | None:
        """What ends a trial before its training: its untrained file breaks a limit on size or
        speed, whatever the training brings. None where it breaks none for certain, or where nothing
        is trained: accuracy costs less than timing then."""
        limits = self.limits
        limited = limits.max_disk_mib is not None or limits.timed
        if not limited or not any(map(candidates.trains, chain)) or not sizes.known(chain):
            return None
        known = {DISK: self.untrained.sizes(chain)[DISK]}
        kindly = {DISK: known[DISK] / MARGIN}
        broken = self._broken(kindly)
        if limits.timed and not broken:
            speeds = self.untrained.speeds(chain)
            best = {"ratio/its": "ratio/its_high", "speed/latency_ms": "speed/latency_ms_low"}
            known |= {key: value for key, value in speeds.items() if key.startswith(tuple(best))}
            kindly |= {key: speeds[end] for key, end in best.items() if speeds}
            broken = self._broken(kindly)
        if not broken:
            return None
        said = (f"{name} {getattr(limits, name):g}, but {_shown(name, known)}" for name in broken)
        return Stopped("before its training", "; ".join(said), known)

    def _broken(self, known: Mapping[str, float]) -> list[str]:
        """Limits that these figures break; not those of which nothing is known."""
        return [name for name, excess in self._violations(known).items() if 0 < excess < math.inf]

    def best(self) -> float | None:
        """The highest OCS of the feasible trials so far."""
        return records.best_ocs(records.ended(self.study))

    @functools.cached_property
    def conditions(self) -> Conditions:
        """Of every trial; further metric families are asked in the final comparison only."""
        return dataclasses.replace(self.bench.conditions, families=())

    @functools.cached_property
    def untrained(self) -> Untrained:
        """What chains ship that have not trained."""
        return Untrained(self.work, self.conditions, self.origin, self.context, self.timing_lock)

    def _watched(self, made: Candidate) -> Context:
        """A context that pauses while another process times, that ends a trial in time, and a
        training when it is hopeless."""
        spec, begun = self.recipe.search, time.monotonic()
        limit = spec.trial_timeout if spec is not None else None

        def progress(what: str, done: float) -> None:
            self.timing_lock.pause()
            if time.monotonic() > self.end:
                raise GivenBack
            if limit is not None and time.monotonic() - begun > limit:
                raise NetzipError(f"took longer than search.trial_timeout, {limit:g} s")
            self.work.progress(what, done)

        return dataclasses.replace(self.context, log=self._watching(made), progress=progress)

    def _watching(self, made: Candidate) -> Callable[[str, float, int], None]:
        """Logs a training by epoch, and ends it when it is hopeless."""
        history: list[float] = []
        base = self._float_accuracy

        def log(key: str, value: float, epoch: int) -> None:
            made.epoch(key, value, epoch)
            if key != "training/validation":
                return
            if epoch == 1:
                history.clear()
            history.append(value)
            epochs = made.technique.training_epochs if made.technique else 0
            limit = self.limits.max_drop_points
            if made.last_training and early_stopping.hopeless(history, epochs, base, limit):
                raise Stopped.by_drop(f"after epoch {epoch}", 100 * (base - max(history)))

        return log

    @functools.cached_property
    def _float_accuracy(self) -> float:
        """Of the baseline's twin on validation, as training reports it."""
        assert self.origin.twin is not None  # noqa: S101 (the baseline has one)
        return self.task.validate(self.origin.twin.network())


def _shown(name: str, known: Mapping[str, float]) -> str:
    """The figure that breaks a limit, in words."""
    if name == "max_disk_mib":
        return f"its file has {known[DISK]:,.0f} bytes"
    key = "ratio/its" if name == "min_speedup" else "speed/latency_ms"
    value, low, high = (known[key + end] for end in ("", "_low", "_high"))
    return f"it has {value:.3f} [{low:.3f}, {high:.3f}]"
