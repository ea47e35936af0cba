"""Techniques: what compresses a network. One file each; the table below lists them.

A technique is a frozen dataclass whose fields are its parameters (`parameter(...)` holds their
bounds as data), with `traits` that say what it is, and one method `apply`. To add one: a file, a
line in `TABLE`, a test. Third parties: the entry-point group `netzip_mlflow.techniques`, or
`module:attribute` in a recipe, naming such a class or a plain function `(twin, context, **kwargs)`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.factories import import_function

if TYPE_CHECKING:
    import torch

    from netzip_mlflow.data import Split
    from netzip_mlflow.deployable import Deployable, Exports
    from netzip_mlflow.tasks import Task
    from netzip_mlflow.twin import Twin

__all__ = [
    "TABLE",
    "Bounds",
    "Context",
    "Range",
    "Technique",
    "Traits",
    "chain",
    "check",
    "find",
    "implied",
    "installed",
    "label",
    "names",
    "parameter",
    "parameter_problems",
    "problems",
    "unread",
]

TABLE = {
    "ptq": "netzip_mlflow.techniques.ptq:PTQ",
    "dynamic_int8": "netzip_mlflow.techniques.dynamic_int8:DynamicInt8",
    "half": "netzip_mlflow.techniques.half:Half",
    "prune_l1": "netzip_mlflow.techniques.prune_l1:PruneL1",
    "prune_random": "netzip_mlflow.techniques.prune_random:PruneRandom",
    "factorise": "netzip_mlflow.techniques.factorise:Factorise",
    "distil": "netzip_mlflow.techniques.distil:Distil",
    "prune_channels": "netzip_mlflow.techniques.prune_channels:PruneChannels",
    "finetune": "netzip_mlflow.techniques.finetune:Finetune",
    "qat": "netzip_mlflow.techniques.qat:QAT",
    "binarise": "netzip_mlflow.techniques.binarise:Binarise",
    "share_kernels": "netzip_mlflow.techniques.share_kernels:ShareKernels",
}
ENTRY_POINTS = "netzip_mlflow.techniques"
WIDTHS = ("bits", "edges", "budget", "wide", "max_drop")  # what decides a layer's stored bits


Family = Literal["quantisation", "pruning", "distillation", "decomposition", "training", "own"]


@dataclass(frozen=True)
class Traits:
    """What a technique is and needs; the same data feed the checks, the lists and the docs.

    `stage` orders the float techniques of a chain by what they would undo: `structure` (layers
    change shape, so that masks would no longer fit) before `sparsity` (zeros kept by masks);
    `weights` anywhere before `grid` (weights lie on the values that the file will store, which
    `ptq` alone reads: `reads_grids`). A grid technique says whether it decides for `every_layer`,
    so that nothing is left for `ptq` to choose, and which earlier ones' grids it `keeps`.
    `needs_calibration` and `needs_training` speak of the defaults: what trains only on demand says
    in `training_epochs` how long. `searched`: whether a search tries the technique without being
    told to; not where it is a control, needs to be told something of the network, or only serves
    others. `starts`: parameters that did well somewhere, from which such a search begins.
    """

    family: Family
    kind: Literal["float", "deploy"]
    summary: str
    stage: Literal["structure", "sparsity", "weights", "grid"] = "weights"
    needs_calibration: bool = False
    needs_training: bool = False
    size_known: bool = True
    reads_grids: bool = False
    every_layer: bool = False
    keeps: tuple[str, ...] = ()
    searched: bool = True
    starts: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Range:
    """What a search tries of a number: a closed range, on a logarithmic scale or in steps."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Bounds:
    """What a parameter may be: a type, a closed range, or a set of choices; None where optional.

    `search` is what a search tries by default: a range or values; None where it keeps the default.
    """

    type: type
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    optional: bool = False
    help: str = ""
    search: Range | tuple[Any, ...] | None = None

    def __str__(self) -> str:
        if self.choices is not None:
            text = " | ".join(map(str, self.choices))
        else:
            kind = {int: "an integer", float: "a number", bool: "true | false", str: "a text"}[
                self.type
            ]
            limits = {
                (True, True): f" from {self.low} to {self.high}",
                (True, False): f" >= {self.low}",
                (False, True): f" <= {self.high}",
            }
            text = kind + limits.get((self.low is not None, self.high is not None), "")
        return f"{text} | null" if self.optional else text

    def admits(self, value: Any) -> bool:
        """Whether a value is allowed; an integer passes where a number is wanted."""
        if value is None:
            return self.optional
        if self.choices is not None:
            return any(value == c and type(value) is type(c) for c in self.choices)
        if self.type is float:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
        elif type(value) is not self.type:
            return False
        return not (
            (self.low is not None and not value >= self.low)
            or (self.high is not None and not value <= self.high)
        )


def parameter(
    default: Any,
    help: str,  # noqa: A002 (the field's usual word)
    *,
    kind: type | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
    search: Range | tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field with its bounds. `kind` is needed only where the default is None."""
    bounds = Bounds(
        type=kind or type(default),
        low=low,
        high=high,
        choices=None if choices is None else tuple(choices),
        optional=default is None,
        help=help,
        search=search,
    )
    return field(default=default, metadata={"bounds": bounds})


@runtime_checkable
class Technique(Protocol):
    """Raises from `apply`: NetzipError when the network cannot take the technique.

    One whose outcome's size hangs on the weights that it is given, on their zeros, or on training,
    says so in a property `sized_by` (`weights`, `zeros`, `training`). One after which no weight is
    zero that was not before may say `makes_zeros = False`.
    """

    traits: ClassVar[Traits]

    def apply(self, twin: Twin, context: Context) -> Twin | Deployable:
        """A new twin (kind float) or the deployable (kind deploy); the given twin is untouched."""
        ...

    def label(self) -> str:
        """Short text for tables, such as `prune_l1(0.3)`."""
        ...


@dataclass(frozen=True, eq=False)
class Context:
    """All that a technique may use. No MLflow, and no test data: the task is sealed meanwhile.

    `untrained`: what is wanted is the size of the outcome, so that training is left out.
    """

    task: Task
    train: Split
    calibration: Split
    validate: Callable[[torch.nn.Module], float]
    teacher: Twin | None
    exports: Exports
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    untrained: bool = False
    progress: Callable[[str, float], None] = lambda _what, _done: None
    log: Callable[[str, float, int], None] = lambda _key, _value, _step: None

    @classmethod
    def of(
        cls, task: Task, teacher: Twin | None = None, *, seed: int = 0, **changes: Any
    ) -> Context:
        """A context for a task; `teacher` is the uncompressed twin, for distillation.

        Raises:
            InputError: the teacher does not take the task's images.
        """
        if teacher is not None and teacher.input.shape != task.shape:
            what = f"the network takes images of {teacher.input.shape}"
            raise InputError(Problem("teacher", what, f"{task.shape}, as the data are"))
        from netzip_mlflow.deployable import Exports
        from netzip_mlflow.training import choose_device, cores

        given = {
            "device": choose_device("auto"),
            "threads": cores(),
            "exports": Exports(),
        } | changes
        return cls(
            task=task,
            train=task.split("train"),
            calibration=task.split("calibration"),
            validate=task.validate,
            teacher=teacher,
            seed=seed,
            **given,
        )


def names() -> dict[str, str]:
    """Every known technique, ours and installed ones: name to one-line description."""
    return {name: find(name).traits.summary for name in (*TABLE, *installed())}


def find(name: str) -> type[Technique]:
    """The class of a technique.

    Raises:
        InputError: unknown, or its module cannot be imported.
    """
    target = TABLE.get(name) or installed().get(name) or (name if ":" in name else None)
    if target is None:
        known = [*TABLE, *installed()]
        hint = did_you_mean(name, known)
        allowed = f"{', '.join(known)}, or module:function"
        raise InputError(Problem("", f"unknown technique {name!r}", allowed, hint))
    found = import_function(target, f"technique {name!r}")
    if isinstance(found, type):
        return _sound(name, found)
    from netzip_mlflow.techniques.own import own

    return own(name, found)


def _sound(name: str, found: type) -> type[Technique]:
    wanted = [n for n in ("traits", "apply", "label") if not hasattr(found, n)]
    if not dataclasses.is_dataclass(found):
        wanted.append("@dataclass")
    else:
        wanted += [
            f"{f.name}: parameter(...)"
            for f in dataclasses.fields(found)
            if not isinstance(f.metadata.get("bounds"), Bounds)
        ]
    if wanted:
        allowed = "a frozen dataclass with traits, apply, label, and fields made by parameter(...)"
        what = f"{name!r} is no technique, it lacks {', '.join(wanted)}"
        raise InputError(Problem("", what, allowed))
    return found  # type: ignore[return-value]  (seen to have what the protocol wants)


def installed() -> dict[str, str]:
    """Techniques of other packages' entry points: name to module:attribute."""
    from importlib.metadata import entry_points

    return {e.name: e.value for e in entry_points(group=ENTRY_POINTS)}


def chain(
    entries: Iterable[Mapping[str, Mapping[str, Any]]], where: str = ""
) -> tuple[Technique, ...]:
    """The techniques of one chain, ready to apply.

    A chain that puts weights on a grid and names no deploy technique ends with `ptq`.

    Raises:
        InputError: any problem that `check` would report.
    """
    entries = list(entries)
    found = problems(entries, where)
    if found:
        raise InputError(found)
    whole = (*entries, *implied(entries))
    return tuple(find(name)(**given) for entry in whole for name, given in entry.items())


def implied(entries: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """What ends a chain though it is not written: a `ptq` where weights are put on a grid and no
    deploy technique follows."""
    traits = [find(name).traits for entry in entries for name in entry]
    grid = bool(traits) and traits[-1].kind == "float" and any(t.stage == "grid" for t in traits)
    return ({"ptq": {}},) if grid else ()


def label(techniques: Iterable[Technique]) -> str:
    """A chain in one line: `prune_l1(0.3)+finetune+ptq(int8)`; `fp32` when it is empty."""
    return "+".join(t.label() for t in techniques) or "fp32"


def check(raw: Mapping[str, Any]) -> list[Problem]:
    """The problems of every chain of a raw recipe: names, parameters, order."""
    candidates = raw.get("candidates")
    if not isinstance(candidates, Mapping):
        return []
    found: list[Problem] = []
    for name, entries in candidates.items():
        shaped = isinstance(entries, list) and all(
            isinstance(e, Mapping) and all(isinstance(v, Mapping) for v in e.values())
            for e in entries
        )
        if shaped:  # otherwise the schema has said so
            found += problems(entries, f"candidates.{name}")
    return found


def problems(entries: Sequence[Mapping[str, Mapping[str, Any]]], where: str) -> list[Problem]:
    """What is wrong with a chain: names, parameters, order."""
    faults: list[Problem] = []
    known: list[tuple[str, str, Traits]] = []
    for index, entry in enumerate(entries):
        place = f"{where}[{index}]"
        if len(entry) != 1:
            given = ", ".join(map(str, entry)) or "nothing"
            faults.append(Problem(place, f"{given} given", "one technique: {parameters} per entry"))
            continue
        ((name, given),) = entry.items()
        try:
            technique = find(str(name))
        except InputError as error:
            faults += [dataclasses.replace(p, where=place) for p in error.problems]
            continue
        faults += _given_problems(str(name), technique, given, f"{place}.{name}")
        known.append((place, str(name), technique.traits))
    for (place, name, traits), (_, later, _) in itertools.pairwise(known):
        if traits.kind == "deploy":
            what = f"{name} is a deploy technique and stands before {later}"
            allowed = "float techniques first, then at most one deploy technique, last"
            faults.append(Problem(place, what, allowed))
    for index, (place, name, traits) in enumerate(known):
        found = (_undone(name, traits, earlier, before) for _, earlier, before in known[:index])
        faults += [Problem(place, *undone) for undone in found if undone][:1]
    if known and len(known) == len(entries):
        faults += _contradictions(entries[-1], known, f"{where}[{len(entries) - 1}]")
    return faults


def _given_problems(
    name: str, technique: type[Technique], given: Mapping[str, Any], where: str
) -> list[Problem]:
    """What is wrong with a technique's parameters; of anyone's own, what its class raises too."""
    ask = getattr(technique, "problems", None) or partial(parameter_problems, technique)
    if name in TABLE:
        return ask(given, where)
    try:
        faults = ask(given, where)
        if not faults and not isinstance(label := technique(**given).label(), str):
            faults = [Problem(where, f"its label is {label!r}", "a text")]
    except Exception as error:  # noqa: BLE001 (it is anyone's code)
        faults = [Problem(where, f"{type(error).__name__}: {error}")]
    return faults


def _contradictions(
    last: Mapping[str, Mapping[str, Any]], known: Sequence[tuple[str, str, Traits]], where: str
) -> list[Problem]:
    """What the last technique is told of widths that an earlier one has decided for every layer."""
    whole = [name for _, name, traits in known if traits.every_layer]
    if not whole or not known[-1][2].reads_grids:
        return []
    ((name, given),) = last.items()
    why = f"and {whole[0]} has put every layer on values of its own"
    return unread(given, WIDTHS, f"{where}.{name}", why, f"without it, or without {whole[0]}")


def _undone(name: str, traits: Traits, earlier: str, before: Traits) -> tuple[str, str] | None:
    """What a technique would undo of an earlier one, and the order that is allowed instead."""
    if before.stage == "sparsity" and traits.stage == "structure":
        return f"{name} changes layers whose zeros {earlier} has masked", f"{name} before {earlier}"
    if before.stage != "grid":
        return None
    if traits.stage == "grid" and earlier not in traits.keeps:
        what = f"{name} would put layers on other values than {earlier} has put them on"
        return what, f"before {name}: {', '.join(traits.keeps) or 'no technique of that kind'}"
    if traits.kind == "deploy" and not traits.reads_grids:
        what = f"{name} would not store the values that {earlier} has put the weights on"
        return what, "ptq, or no deploy technique, at the end"
    if traits.kind == "float" and traits.stage != "grid":
        what = f"{name} would move the weights off the values that {earlier} has put them on"
        return what, f"{name} before {earlier}"
    return None


def unread(
    given: Mapping[str, Any], keys: Iterable[str], where: str, why: str, allowed: str
) -> list[Problem]:
    """A problem for each parameter that is given and that the technique would not read."""
    told = [key for key in keys if given.get(key)]
    return [Problem(f"{where}.{key}", f"{given[key]!r} given, {why}", allowed) for key in told]


def parameter_problems(technique: type, given: Mapping[str, Any], where: str) -> list[Problem]:
    """Unknown keys and values out of bounds. A class whose parameters depend on one another has a
    static `problems(given, where)` that asks this and adds its own."""
    fields = {f.name: f.metadata["bounds"] for f in dataclasses.fields(technique)}
    problems = []
    for key, value in given.items():
        if key not in fields:
            allowed = ", ".join(fields) or "no parameters"
            problems.append(
                Problem(f"{where}.{key}", "unknown key", allowed, did_you_mean(str(key), fields))
            )
        elif not fields[key].admits(value):
            hint = did_you_mean(str(value), map(str, fields[key].choices or ()))
            problems.append(
                Problem(f"{where}.{key}", f"{value!r} is not allowed", str(fields[key]), hint)
            )
    return problems
