"""The recipe: one YAML file, all that a run depends on.

`load` reads, expands, overrides and validates it, and reports every problem at once.
The schema checks shape only: candidates stay plain mappings, and other rooms add their own
checks (names of techniques, models, data sets) to the same list of problems.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from netzip_mlflow.errors import InputError, Problem, did_you_mean

__all__ = [
    "DataSpec",
    "LatencySpec",
    "MeasureSpec",
    "ModelSpec",
    "Recipe",
    "ScoreSpec",
    "SplitRule",
    "TrainSpec",
    "load",
    "read",
]

Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
CANDIDATE_NAME = re.compile(r"[a-z0-9_-]+")
RESERVED = "baseline"


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

    `weights` is a .safetensors file, a .pt file that loads with weights_only, or `pretrained`
    (torchvision's own). `mean` and `std` (per channel, on the [0, 1] scale) default to the
    training split's and become part of the deployable's graph.
    """

    name: str | None = None
    uri: str | None = None
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
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "onecycle", "constant"] = "cosine"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: Augment = Augment()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None


class LatencySpec(_Spec):
    """When the interleaved rounds stop: half-width of every ratio, seconds, rounds."""

    target: Annotated[float, Field(gt=0, lt=1)] = 0.02
    max_seconds: Annotated[float, Field(gt=0)] = 20.0
    max_rounds: Count = 500
    min_rounds: Annotated[int, Field(ge=5)] = 20


class MeasureSpec(_Spec):
    """How deployables are measured; `throughput` lists batch sizes."""

    threads: Count = 1
    latency: LatencySpec = LatencySpec()
    throughput: tuple[Count, ...] = (32,)
    evaluation_batch: Count = 64


Weight = Annotated[float, Field(ge=0)]


class Weights(_Spec):
    """The lambdas of OCS, one per term."""

    P: Weight = 1.0
    S: Weight = 1.0
    C: Weight = 1.0
    E: Weight = 1.0


class ScoreSpec(_Spec):
    """The basis of the score, and the one constraint: the drop in points that is affordable."""

    accuracy: str = "top1"
    speed: Literal["chats", "latency", "macs", "ops"] = "chats"
    size: Literal["disk", "zip", "params", "nonzero", "cpu", "ram"] = "disk"
    weights: Weights = Weights()
    zeta: Annotated[float, Field(gt=0)] = 1.0
    max_drop_points: Annotated[float, Field(ge=0, le=100)] = 1.0
    strict: bool = False


class Recipe(_Spec):
    """All that a run depends on; see docs/recipes.md for each key."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    task: str = "classification"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSpec
    model: ModelSpec
    train: TrainSpec | None = None
    candidates: dict[str, tuple[dict[str, dict[str, Any]], ...]] = {}
    measure: MeasureSpec = MeasureSpec()
    score: ScoreSpec = ScoreSpec()

    @model_validator(mode="after")
    def _weights_from_somewhere(self) -> Recipe:
        if self.train is None and self.model.weights is None and self.model.uri is None:
            raise ValueError("a model without weights needs a train section")
        return self

    def digest(self) -> str:
        """SHA-256 of the resolved recipe, first 16 hex digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The resolved recipe, every default written out."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)


Check = Callable[[Mapping[str, Any]], Iterable[Problem]]


def load(path: str | Path, overrides: Sequence[str] = (), checks: Sequence[Check] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: the YAML file.
        overrides: ``key.path=value`` texts; values are YAML.
        checks: further checks of the raw mapping; their problems join the schema's.

    Raises:
        InputError: naming every problem at once.
    """
    raw = read(path, overrides)
    problems: list[Problem] = []
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        problems += [_problem(e) for e in error.errors()]
    problems += _candidate_names(raw)
    for check in checks:
        problems += check(raw)
    if problems or recipe is None:
        raise InputError(_without_doubles(problems), source=str(path))
    return recipe


def read(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The raw mapping of a recipe: overridden, shorthand written out, variables expanded.

    Relative paths (`data.path`, `model.weights`) are taken from the recipe's folder.
    """
    file = Path(path)
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        near = sorted(p.name for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
        allowed = f"the recipes there: {', '.join(near)}" if near else "an existing file"
        hint = did_you_mean(file.name, near)
        raise InputError(Problem("", "no such file", allowed, hint), str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", str(path)) from None
    except yaml.YAMLError as error:
        raise InputError(f"is not valid YAML: {' '.join(str(error).split())}", str(path)) from None
    if not isinstance(raw, dict):
        raise InputError(f"must be a mapping of keys, is {type(raw).__name__}", str(path))
    _expand_shorthand(raw)  # before, so that an override reaches into a chain; after, for its own
    for override in overrides:
        _override(raw, override)
    _expand_shorthand(raw)
    problems: list[Problem] = []
    try:
        raw = _expand_variables(raw, "", problems)
    except RecursionError:
        raise InputError("holds a YAML alias that contains itself", str(path)) from None
    if problems:
        raise InputError(problems, str(path))
    _anchor_paths(raw, file.parent, str(path))
    return raw


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float):
                raise yaml.YAMLError(f"key {key!r} is no text, {key_node.start_mark}")
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} is given twice, {key_node.start_mark}")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes the texts which `_Loader` would read as numbers."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )


def _override(raw: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise InputError(f"--set {text!r}: must be key.path=value")
    try:
        parsed = yaml.load(value, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--set {text!r}: the value is not valid YAML: {reason}") from None
    place: Any = raw
    *parents, last = key.strip().split(".")
    for part in parents:
        if isinstance(place, list):
            place = place[_index(place, part, text)]
        elif isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        else:
            raise InputError(f"--set {text!r}: {part!r} lies below a plain value")
    if isinstance(place, list):
        place[_index(place, last, text)] = parsed
    elif isinstance(place, dict):
        place[last] = parsed
    else:
        raise InputError(f"--set {text!r}: {last!r} lies below a plain value")


def _index(place: list[Any], part: str, text: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        allowed = f"0 to {len(place) - 1}"
        raise InputError(f"--set {text!r}: {part!r} is no position in the list; allowed: {allowed}")
    return int(part)


def _expand_shorthand(raw: dict[str, Any]) -> None:
    """Write `half` out as `half: {}`, wherever a chain's entry has no parameters."""
    candidates = raw.get("candidates")
    if not isinstance(candidates, dict):
        return
    for name, given in candidates.items():
        chain = [given] if isinstance(given, str | dict) else given
        if isinstance(chain, list):
            candidates[name] = [_entry(entry) for entry in chain]


def _entry(entry: Any) -> Any:
    if isinstance(entry, str):
        return {entry: {}}
    if isinstance(entry, dict):
        return {k: {} if v is None else v for k, v in entry.items()}
    return entry


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _expand_variables(value: Any, where: str, problems: list[Problem]) -> Any:
    if isinstance(value, dict):
        return {
            k: _expand_variables(v, f"{where}.{k}" if where else str(k), problems)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_expand_variables(v, f"{where}[{i}]", problems) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    problems += [
        Problem(where, f"{value!r} names the environment variable {name}, which is not set")
        for name in _VARIABLE.findall(value)
        if name not in os.environ
    ]
    return _VARIABLE.sub(lambda m: os.environ.get(m.group(1), ""), value)


def _anchor_paths(raw: dict[str, Any], folder: Path, source: str) -> None:
    for section, key in (("data", "path"), ("model", "weights")):
        part = raw.get(section)
        value = part.get(key) if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(value, str) and value != "pretrained":
            try:
                part[key] = str((folder / Path(value).expanduser()).resolve())
            except (RuntimeError, ValueError) as error:  # no such user's home; a zero byte
                what = f"{value!r} is no path: {error}"
                raise InputError(Problem(f"{section}.{key}", what), source) from None


def _candidate_names(raw: Mapping[str, Any]) -> list[Problem]:
    candidates = raw.get("candidates")
    if not isinstance(candidates, dict):
        return []
    problems = []
    for name in candidates:
        if name == RESERVED:
            problems.append(Problem(f"candidates.{name}", "the name is reserved"))
        elif not CANDIDATE_NAME.fullmatch(str(name)):
            problems.append(
                Problem(f"candidates.{name}", "not a candidate's name", "letters a-z, 0-9, _ and -")
            )
    return problems


def _problem(error: Any) -> Problem:
    """A pydantic error in our words: where, what was given, what is allowed, did-you-mean."""
    where = _where(error["loc"])
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        fields = _fields_at(error["loc"][:-1])
        hint = did_you_mean(str(error["loc"][-1]), fields)
        return Problem(where, "unknown key", ", ".join(fields), hint)
    if kind == "missing":
        return Problem(where, "is missing")
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(given, dict):
        return Problem(where, message)
    allowed = message.removeprefix("Input should be ")
    hint = did_you_mean(given, re.findall(r"'([^']*)'", allowed)) if isinstance(given, str) else ""
    return Problem(where, f"{given!r} is not allowed", allowed, hint)


def _where(location: Sequence[str | int]) -> str:
    """`('candidates', 'small', 1, 'finetune')` as `candidates.small[1].finetune`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not _UNION_MEMBER.match(part):
            text += f".{part}" if text else part
    return text


# pydantic names the member of a union it tried; to a reader that is no part of the path
_UNION_MEMBER = re.compile(r"^(float|int|constrained-\w+|SplitRule)$")


def _fields_at(location: Sequence[str | int]) -> list[str]:
    model: Any = Recipe
    for part in location:
        if part == "SplitRule":
            model = SplitRule
        elif isinstance(part, str) and hasattr(model, "model_fields"):
            field = model.model_fields.get(part)
            found = (
                re.findall(r"\b(\w+Spec|Augment|Weights)\b", str(field.annotation)) if field else []
            )
            model = globals().get(found[0]) if found else None
    return list(model.model_fields) if hasattr(model, "model_fields") else []


def _without_doubles(problems: Iterable[Problem]) -> list[Problem]:
    return list({str(p): p for p in problems}.values())
