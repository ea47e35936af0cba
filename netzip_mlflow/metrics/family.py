"""What a metric family is: figures of one kind, taken by one function that says what it needs.

A family is one file: a class with `needs`, `metrics` and `measure`, created without arguments. A
recipe names further ones (``measure.families: ["module:Class"]``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics.metric import Metric

if TYPE_CHECKING:
    from netzip_mlflow.recipe import MeasureSpec
    from netzip_mlflow.runtimes import Runtime, Session

__all__ = ["NEEDS", "Conditions", "Facts", "Family", "Figures", "Model", "Need", "checked"]

Need = Literal["file", "data", "together", "alone", "meter"]
NEEDS: dict[Need, str] = {
    "file": "one model's file, before anything runs",
    "data": "one model's evaluations, and the task with its splits; once a split",
    "together": "all models at once, the baseline first",
    "alone": "one model at a time, while nothing else of ours runs",
    "meter": "all models at once, after everything else, for long windows",
}
Progress = Callable[[str, float], None]


class Facts(TypedDict, total=False):
    """What else is logged of a model; the tag `netzip.facts` holds it as JSON."""

    casts: int
    conversions: int
    dynamic_nodes: int
    float_layers: list[str]
    macs: str
    energy: str
    stopped: str
    noisy: list[str]


@dataclass(frozen=True, eq=False)
class Model:
    """What a family may use of a model.

    Attributes:
        session: of its file, opened in `runtime`.
        shape: of one image, (C, H, W).
        adapter: how a foreign file wants its input (`runtimes.adapter.Adapter`).
        evaluations: by split, as the task gave them (`tasks.Evaluation`).
    """

    name: str
    path: Path
    runtime: Runtime
    session: Session
    shape: tuple[int, ...]
    adapter: Any = None
    evaluations: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Conditions:
    """What is the same for every model that is measured.

    Attributes:
        task: with its data opened (`tasks.Task`); None where there is none.
        families: further ones, measured after those of this package.
        split: that a family with the need `data` is asked for.
        baseline: beside a model that is measured by itself; None where it is the model.
    """

    spec: MeasureSpec
    seed: int
    progress: Progress
    task: Any = None
    families: tuple[Family, ...] = ()
    split: str = ""
    baseline: Model | None = None


@dataclass(frozen=True)
class Figures:
    """What a family says of one model.

    Attributes:
        metrics: by key; never 0 for what could not be measured.
        absent: key -> why it is not among them.
        flags: what makes the figures doubtful, a word each.
        fault: why the model cannot be run at all: it is measured no further.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    facts: Facts = field(default_factory=Facts)
    fault: str = ""


class Family(Protocol):
    """One kind of measurement; its metrics' keys are its own."""

    needs: Need
    metrics: tuple[Metric, ...]

    def measure(self, models: Sequence[Model], conditions: Conditions, /) -> Sequence[Figures]:
        """Figures of each model, in their order.

        Where the need is `file`, `data` or `alone` there is one model, and `conditions.baseline`
        stands beside it.

        Raises:
            NetzipError: nothing can be measured; its metrics are absent for that reason.
        """
        ...


def checked(family: Family, models: Sequence[Model], conditions: Conditions) -> list[Figures]:
    """What a family that may be anyone's says, as far as it keeps to its own records.

    A figure that is not finite is absent. Where the family fails, all of its metrics are.
    """
    try:
        figures = [_finite(each) for each in family.measure(models, conditions)]
        problem = _problem(family, figures, len(models))
    except Exception as error:  # noqa: BLE001 (anyone's code; the other families' figures hold)
        known = isinstance(error, NetzipError | MemoryError)
        problem = str(error) if known else f"{type(error).__name__}: {error}"
        figures = []
    if not problem:
        return figures
    reason = f"{type(family).__name__}: {problem}"
    return [Figures(absent={metric.key: reason for metric in family.metrics}) for _ in models]


def _problem(family: Family, figures: Sequence[Figures], models: int) -> str:
    if len(figures) != models:
        return f"gives figures of {len(figures)} models, not of {models}"
    keys = (key for each in figures for key in (*each.metrics, *each.absent))
    strange = [key for key in keys if not any(m.covers(key) for m in family.metrics)]
    return f"gives {strange[0]}, which none of its metrics describes" if strange else ""


def _finite(figures: Figures) -> Figures:
    metrics = {k: float(v) for k, v in figures.metrics.items() if math.isfinite(v)}
    absent = {k: f"is {v}" for k, v in figures.metrics.items() if k not in metrics}
    return dataclasses.replace(figures, metrics=metrics, absent={**absent, **figures.absent})
