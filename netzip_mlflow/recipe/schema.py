"""The schema of a recipe: sections, keys, types, bounds, defaults."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from netzip_mlflow.databases import without_secrets
from netzip_mlflow.factories import paths
from netzip_mlflow.recipe.syntax import Dumper
from netzip_mlflow.runtimes import DEFAULT

__all__ = [
    "Augment",
    "DataSpec",
    "LatencySpec",
    "MeasureSpec",
    "ModelSpec",
    "Recipe",
    "ScoreSpec",
    "SearchLimits",
    "SearchSpec",
    "SplitRule",
    "TrainSpec",
    "Weights",
]

# of a recipe and of a candidate: a run's name and key, a registered model's name, a file's name;
# the tightest is MLflow's key recipe/candidates/<name> of 250, but paths on Windows end at 260
NAME_LIMIT = 100
MOMENTUM = 0.9
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh])")
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class SplitRule(_Spec):
    """How one split is cut: exactly one of `first`, `count`, `fraction`, from the part `of`."""

    first: Count | None = None
    count: Count | None = None
    fraction: Fraction | None = None
    of: str = "train"

    @model_validator(mode="after")
    def _one_size(self) -> SplitRule:
        given = [k for k in ("first", "count", "fraction") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of first, count, fraction; got {given or 'none'}")
        return self


def _size_kind(given: Any) -> str:
    if isinstance(given, Mapping | SplitRule):
        return "SplitRule"
    return "int" if type(given) is int else "float"


# told apart by what was given, so that one mistake is one message
SplitSize = Annotated[
    Annotated[Fraction, Tag("float")]
    | Annotated[Count, Tag("int")]
    | Annotated[SplitRule, Tag("SplitRule")],
    Discriminator(_size_kind),
]
Portion = Annotated[
    Annotated[Fraction, Tag("float")] | Annotated[Count, Tag("int")], Discriminator(_size_kind)
]


class DataSpec(_Spec):
    """What the network is trained and judged on. `name` or `factory`, not both.

    `validation` and `test` are a fraction, a count, or a `SplitRule`; without `test`, the part
    named test that the data set ships. `calibration` is cut from train. `groups` names a column
    (npz) whose equal values stay in one split. `size` resizes images of a folder (pixels).
    """

    name: str | None = None
    factory: str | None = None
    arguments: dict[str, Any] = {}
    path: str | None = None
    size: Count | None = None
    validation: SplitSize = 0.2
    test: SplitSize | None = None
    calibration: Portion = 256
    groups: str | None = None
    duplicates: Literal["error", "drop"] = "error"

    @model_validator(mode="after")
    def _one_source(self) -> DataSpec:
        if (self.name is None) == (self.factory is None):
            raise ValueError("exactly one of name, factory")
        return self


class ModelSpec(_Spec):
    """The network: exactly one of `name`, `uri` (a logged model's twin) and `factory`.

    `allow` lists the functions of your own, as module:function, that the twin of `uri` may import.
    `weights` is a .safetensors file, a .pt file that loads with weights_only, or `pretrained`
    (torchvision's own). `mean` and `std` (per channel, on the [0, 1] scale) default to the
    training split's and become part of the deployable's graph.
    """

    name: str | None = None
    uri: str | None = None
    allow: tuple[str, ...] = ()
    factory: str | None = None
    arguments: dict[str, Any] = {}
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        given = [k for k in ("name", "uri", "factory") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of name, uri, factory; got {given or 'none'}")
        if self.allow and self.uri is None:
            raise ValueError("allow is of uri: it says what that twin may import")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        return self


class Augment(_Spec):
    """Random changes of a training image: horizontal flip, shift by up to `crop` pixels."""

    flip: bool = False
    crop: Annotated[int, Field(ge=0)] = 0


class TrainSpec(_Spec):
    """How the baseline is trained; lr is the peak of the schedule."""

    epochs: Count = 10
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    batch: Count = 64
    momentum: Annotated[float, Field(ge=0, lt=1)] = MOMENTUM
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "onecycle", "constant"] = "cosine"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: Augment = Augment()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None

    @model_validator(mode="after")
    def _momentum_of_sgd(self) -> TrainSpec:
        # the default passes: a recipe that is written out in full names it
        if self.optimizer != "sgd" and self.momentum != MOMENTUM:
            raise ValueError(
                f"momentum is of optimizer: sgd; {self.optimizer} has its own, so leave it out"
            )
        return self


class LatencySpec(_Spec):
    """When the interleaved rounds stop: half-width of every ratio, seconds, rounds."""

    target: Annotated[float, Field(gt=0, lt=1)] = 0.02
    max_seconds: Annotated[float, Field(gt=0)] = 20.0
    max_rounds: Count = 500
    min_rounds: Annotated[int, Field(ge=5)] = 20


class MeasureSpec(_Spec):
    """How deployables are measured; `throughput` lists batch sizes, `runtimes` what runs the files:
    the first scores, the others are measured beside it; `families` further metric families, as
    module:Class or by their entry points' names."""

    threads: Count = 1
    latency: LatencySpec = LatencySpec()
    throughput: tuple[Count, ...] = (32,)
    evaluation_batch: Count = 64
    runtimes: Annotated[tuple[str, ...], Field(min_length=1)] = (DEFAULT,)
    families: tuple[str, ...] = ()


Weight = Annotated[float, Field(ge=0)]


class Weights(_Spec):
    """The lambdas of OCS, one per term."""

    P: Weight = 1.0
    S: Weight = 1.0
    C: Weight = 1.0
    E: Weight = 1.0


class ScoreSpec(_Spec):
    """The basis of the score, and the one constraint: the drop in points that is affordable.

    `accuracy`: by default the task's primary one.
    """

    accuracy: str | None = None
    speed: Literal["chats", "latency", "macs", "ops"] = "chats"
    size: Literal["disk", "zip", "params", "nonzero", "cpu", "ram"] = "disk"
    weights: Weights = Weights()
    zeta: Annotated[float, Field(gt=0)] = 1.0
    max_drop_points: Annotated[float, Field(ge=0, le=100)] = 1.0
    strict: bool = False


Positive = Annotated[float, Field(gt=0)]


def _seconds(given: Any) -> Any:
    """`"90s"`, `"30m"`, `"8h"` in seconds; what is no text is left for the type to judge."""
    if not isinstance(given, str):
        return given
    found = DURATION.fullmatch(given.strip())
    if found is None:
        raise ValueError("seconds, or a text such as 90s, 30m, 8h")
    return float(found[1]) * UNITS[found[2]]


Duration = Annotated[float, Field(gt=0), BeforeValidator(_seconds)]


class SearchLimits(_Spec):
    """Further constraints of a search, beside `score.max_drop_points`; None: no limit.

    Latency is batch 1 at `measure.threads`; disk of the file that ships; `min_speedup` the latency
    ratio to the baseline; agreement and the worst class's drop against the baseline's predictions.
    """

    max_latency_ms: Positive | None = None
    max_disk_mib: Positive | None = None
    min_speedup: Positive | None = None
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    max_worst_class_drop_points: Annotated[float, Field(ge=0, le=100)] | None = None


def _space_kind(given: Any) -> str:
    return "SearchChain" if isinstance(given, list | tuple) else "SearchAuto"


SearchSpace = Annotated[
    Annotated[Literal["auto"], Tag("SearchAuto")]
    | Annotated[tuple[dict[str, Any], ...], Tag("SearchChain")],
    Discriminator(_space_kind),
]


class SearchSpec(_Spec):
    """What `search` tries: `space` is a chain with domains, or `auto` (from the techniques).

    `trials` belong to the study, however often it is gone on with. `timeout` (seconds, or a text
    such as 90s, 30m, 8h) ends the search; a trial that takes longer than `trial_timeout` fails.
    `keep`: so many of the best are measured on test, beside the recipe's candidates, and their
    models stored. `objectives`: with `sampler: nsga2`, the ratios whose Pareto front is searched.
    """

    space: SearchSpace = "auto"
    trials: Count = 50
    sampler: Literal["tpe", "gp", "nsga2", "random"] = "tpe"
    limits: SearchLimits = SearchLimits()
    objectives: tuple[Literal["P", "S", "C"], ...] = ()
    timeout: Duration | None = None
    trial_timeout: Duration | None = None
    keep: Count = 3

    @model_validator(mode="after")
    def _front(self) -> SearchSpec:
        if self.sampler == "nsga2" and len(set(self.objectives)) < max(2, len(self.objectives)):
            raise ValueError("sampler: nsga2 wants objectives: two or three of P, S, C, each once")
        if self.sampler != "nsga2" and self.objectives:
            raise ValueError("objectives are of sampler: nsga2; the others search for the best OCS")
        return self


class Recipe(_Spec):
    """All that a run depends on; see docs/recipes.md for each key."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=NAME_LIMIT)]
    task: str = "classification"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSpec
    model: ModelSpec
    train: TrainSpec | None = None
    candidates: dict[str, tuple[dict[str, dict[str, Any]], ...]] = {}
    measure: MeasureSpec = MeasureSpec()
    score: ScoreSpec = ScoreSpec()
    search: SearchSpec | None = None

    @model_validator(mode="after")
    def _weights_from_somewhere(self) -> Recipe:
        if self.train is None and self.model.weights is None and self.model.uri is None:
            raise ValueError("a model without weights needs a train section")
        return self

    def code(self) -> frozenset[str]:
        """What of a user's code, as module:function, the recipe names for its networks: all that a
        twin from the store may import."""
        space = self.search.space if self.search else ()
        return paths([self.model.factory, *self.model.allow, self.candidates, space])

    def digest(self) -> str:
        """SHA-256 of the resolved recipe, first 16 hex digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self, *, secrets: bool = False) -> str:
        """The resolved recipe, every default written out; `secrets`: passwords too."""
        plain = self.model_dump(mode="json")
        return yaml.dump(
            plain if secrets else without_secrets(plain), Dumper=Dumper, sort_keys=False
        )
