"""One trial of a search: a chain that the space suggests, walked, judged on validation, told."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netzip_mlflow import scoring, techniques
from netzip_mlflow.search import rules, sizes
from netzip_mlflow.search.study import Failed
from netzip_mlflow.stages import candidates, measurement

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from netzip_mlflow.cache import StageCache
    from netzip_mlflow.deployable import Deployable
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.search import Space
    from netzip_mlflow.search.quiet import Quiet
    from netzip_mlflow.stages.candidates import Candidate
    from netzip_mlflow.stages.job import Job
    from netzip_mlflow.tasks import Task
    from netzip_mlflow.techniques import Context, Technique
    from netzip_mlflow.twin import Twin

__all__ = ["CHAIN", "ENTRIES", "FEASIBLE", "REASON", "RUN", "VIOLATIONS", "Trials"]

DROP = "validation/accuracy/drop_points"
HIGH = f"{DROP}_high"

CHAIN, ENTRIES, FEASIBLE, REASON, RUN, SAME, SIZES, VIOLATIONS = (
    f"netzip.{part}"
    for part in (
        "chain",
        "entries",
        "feasible",
        "reason",
        "run_id",
        "same_as",
        "sizes",
        "violations",
    )
)
MARGIN = 1.002  # of a file's size: what in it hangs on the weights' values


class Stopped(Exception):
    """A training that can no longer come within the constraint; `drop` points are its best."""

    def __init__(self, drop: float, epoch: int) -> None:
        super().__init__(f"stopped after epoch {epoch}: {drop:.2f} points below the baseline")
        self.drop = drop


@dataclass(eq=False)
class Trials:
    """What all trials of a process share; called with each of Optuna's trials."""

    work: Job
    recipe: Recipe
    task: Task
    origin: Candidate
    context: Context
    space: Space
    limits: scoring.Constraints
    cache: StageCache | None
    study: optuna.Study
    quiet: Quiet
    made: dict[int, Candidate] = field(default_factory=dict)

    def __call__(self, trial: optuna.Trial) -> float:
        """The trial's OCS on validation; its constraints are set.

        Raises:
            Failed: the chain cannot be made.
            TrialPruned: it cannot become better than the best, by its bound.
        """
        with self.quiet.working():
            return self._walked(trial)

    def _walked(self, trial: optuna.Trial) -> float:
        from optuna.exceptions import TrialPruned

        entries = self.space.suggest(trial)
        chain = techniques.chain(entries)
        label = techniques.label(chain)
        tags = {"netzip.baseline": self.origin.run.id, "netzip.trial": str(trial.number)}
        name = f"trial-{trial.number}"
        made = candidates.start(self.work, name, label, tags, kind="trial")
        self.made[trial.number] = made
        trial.set_user_attr(RUN, made.run.id)
        trial.set_user_attr(CHAIN, label)
        trial.set_user_attr(ENTRIES, json.dumps(entries, sort_keys=True))
        made.run.log(params=dict(candidates.parameters(chain)))
        self.work.say(f"{name}: {label}")
        try:
            return self._tried(trial, made, chain)
        except TrialPruned:
            raise
        except Exception as error:  # a technique may be anyone's code; its run says what
            candidates.fail(made, error)
            self.work.say(f"{name} failed: {made.error}")
            raise Failed(made.error) from error

    def end(self, trial: FrozenTrial) -> None:
        """When the database knows a trial's end, its run ends too (a failed one's has)."""
        made = self.made.pop(trial.number, None)
        if made is not None and not made.error:
            candidates.finish(made)

    def _tried(self, trial: optuna.Trial, made: Candidate, chain: Sequence[Technique]) -> float:
        known = self._same(trial)
        if known is not None:
            self._explain(trial, made, f"the same chain as trial {known.number}")
            trial.set_user_attr(SAME, known.number)
            return self._told(trial, json.loads(known.user_attrs[VIOLATIONS]), known.value or 0.0)
        if sizes.known(chain):
            self._skip_by_bound(trial, made, chain)
        context = dataclasses.replace(
            self.context, log=self._watching(made), progress=self._progress
        )
        origin = self.origin.twin
        assert origin is not None  # noqa: S101 (the baseline has one)
        try:
            made_file = candidates.walk(made, chain, origin, context, self.cache, self.work.say)
        except Stopped as stop:
            self._explain(trial, made, str(stop))
            made.run.log({DROP: stop.drop})
            return self._told(trial, self._violations({DROP: stop.drop, HIGH: stop.drop}), 0.0)
        made.file = made_file.save(made.folder)
        metrics = self._judged(made)
        made.run.log(metrics)
        return self._told(trial, self._violations(metrics), metrics["validation/score/ocs"])

    def _judged(self, made: Candidate) -> dict[str, float]:
        """Sizes, operations, accuracy on validation; latency where a limit or the basis wants it
        and everything else is within its limits."""
        assert made.file is not None  # noqa: S101 (stored before)
        assert self.origin.measured is not None  # noqa: S101 (judged before)
        spec, seed, score = self.recipe.measure, self.recipe.seed, self.recipe.score
        made.measured = found = measurement.inspect(made.name, made.file, spec)
        baseline = self.origin.measured
        measurement.judge(found, baseline, self.task, ("validation",), spec, seed, self._progress)
        untimed = {
            k: v for k, v in self._violations(found.metrics).items() if k not in scoring.TIMED
        }
        timed = self.limits.timed or score.speed == "latency"
        if timed and all(excess <= 0 for excess in untimed.values()):
            with self.quiet.alone() as quiet:
                measurement.clock([baseline, found], spec, seed, self.work.progress)
            found.flags += [] if quiet else ["noisy"]
        if score.speed != "latency" or "ratio/its" in found.metrics:
            measurement.grade(found, baseline, score)
        else:
            found.metrics["validation/score/ocs"] = 0.0  # outside a limit: never ranked by it
        if made.seconds is not None:
            found.metrics["compress/seconds"] = made.seconds
        return found.metrics

    def _progress(self, what: str, done: float) -> None:
        """Progress is a pause point: another process may want to time."""
        self.quiet.pause()
        self.work.progress(what, done)

    def _violations(self, metrics: Mapping[str, float]) -> dict[str, float]:
        assert self.origin.measured is not None  # noqa: S101 (judged before)
        return self.limits.violations(self.origin.measured.metrics, metrics)

    def _told(self, trial: optuna.Trial, violations: Mapping[str, float], value: float) -> float:
        """Every constraint, last and once: a trial without them counts as feasible."""
        feasible = all(excess <= 0 for excess in violations.values())
        trial.set_user_attr(VIOLATIONS, json.dumps(violations))
        trial.set_user_attr(FEASIBLE, feasible)
        self.made[trial.number].run.log({"validation/score/feasible": float(feasible)})
        for name, excess in violations.items():
            trial.set_constraint(name, excess)
        return value

    def _explain(self, trial: optuna.Trial, made: Candidate, reason: str) -> None:
        """Why a trial ended before its time."""
        trial.set_user_attr(REASON, reason)
        made.note(reason)
        made.run.log(tags={"netzip.reason": reason})
        self.work.say(f"{made.name}: {reason}")

    def _same(self, trial: optuna.Trial) -> FrozenTrial | None:
        """An earlier trial of the same chain that was judged to its end."""
        from optuna.trial import TrialState

        wanted = self.study.trials[trial.number].user_attrs[ENTRIES]
        for other in self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
            attributes = other.user_attrs
            if attributes.get(ENTRIES) == wanted and REASON not in attributes:
                return other
        return None

    def _skip_by_bound(
        self, trial: optuna.Trial, made: Candidate, chain: Sequence[Technique]
    ) -> None:
        """End a trial whose size and operations say that it cannot become the best.

        Raises:
            TrialPruned: then; its constraints are set, as far as they are known.
        """
        from optuna.exceptions import TrialPruned

        assert self.origin.measured is not None  # noqa: S101 (judged before)
        best = self.best()
        basis = scoring.Basis.from_spec(self.recipe.score)
        if best is None or basis.speed not in scoring.KNOWN_SPEEDS:
            return
        if basis.size not in scoring.KNOWN_SIZES:
            return
        found = self._sizes(chain)
        bound = scoring.ocs_bound(
            self.origin.measured.metrics,
            found | {basis.size_key: found[basis.size_key] / MARGIN},
            basis,
            max_drop_points=self.limits.max_drop_points,
        )
        if bound > best:
            return
        self._explain(trial, made, f"skipped: OCS at most {bound:.3f}, best so far {best:.3f}")
        self._told(trial, dict.fromkeys(self.limits.names(), 0.0), bound)
        raise TrialPruned

    def best(self) -> float | None:
        """The highest OCS of the feasible trials so far."""
        from optuna.trial import TrialState

        done = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        values = [t.value for t in done if t.user_attrs.get(FEASIBLE) and t.value is not None]
        return max(values, default=None)

    def _sizes(self, chain: Sequence[Technique]) -> dict[str, float]:
        """Sizes and operations of what a chain ships, from the untrained one."""
        key = sizes.size_key(chain)
        if key not in self._known:
            assert self.origin.twin is not None  # noqa: S101 (the baseline has one)
            context = dataclasses.replace(self.context, untrained=True)
            file = _applied(chain, self.origin.twin, context).save(self.work.folder / "untrained")
            found = measurement.inspect("untrained", file, self.recipe.measure).metrics
            self._known[key] = {k: v for k, v in found.items() if k.startswith(("speed/", "size/"))}
        return self._known[key]

    @functools.cached_property
    def _known(self) -> dict[str, dict[str, float]]:
        return {}

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
            epochs = getattr(made.technique, "training_epochs", 0)
            limit = self.limits.max_drop_points
            if made.last_training and rules.hopeless(history, epochs, base, limit):
                raise Stopped(100 * (base - max(history)), epoch)

        return log

    @functools.cached_property
    def _float_accuracy(self) -> float:
        """Of the baseline's twin on validation, as training reports it."""
        assert self.origin.twin is not None  # noqa: S101 (the baseline has one)
        return self.task.validate(self.origin.twin.network())


def _applied(chain: Sequence[Technique], origin: Twin, context: Context) -> Deployable:
    """A chain walked without a run."""
    from netzip_mlflow.deployable import deploy
    from netzip_mlflow.twin import Twin

    twin = origin
    with context.task.sealed():
        for technique in chain:
            result = technique.apply(twin, context)
            if not isinstance(result, Twin):
                return result
            twin = result
        return deploy(twin, context)
