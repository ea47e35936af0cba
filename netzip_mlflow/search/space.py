"""The space of a search: a chain whose techniques may be on or off and whose parameters vary."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from netzip_mlflow import techniques
from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.search.domains import AUTO, Choices, Domain, domain

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["ONE_OF", "OPTIONAL", "Slot", "Space", "Step", "check", "read"]

OPTIONAL, ONE_OF, NONE = "optional", "one_of", "none"
COMBINATIONS = 1000  # checked one by one; a space of more is checked in parts
Entry = dict[str, dict[str, Any]]
WHERE = "search.space"


@dataclass(frozen=True, eq=False)
class Step:
    """One technique: parameters that are given, and those that vary, in the technique's order."""

    technique: str
    fixed: Mapping[str, Any]
    free: Mapping[str, Domain]


Alternative = tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Slot:
    """A place in the chain, and what may stand there; an empty alternative: nothing."""

    alternatives: tuple[Alternative, ...]


class Chooser(Protocol):
    """Whoever decides what varies; `Unsuited` ends the attempt."""

    def place(self, number: int, name: str, offered: Sequence[Alternative]) -> Alternative:
        """One of the alternatives of a place; where one is offered, nothing varies."""
        ...

    def value(self, step: Step, key: str, name: str) -> Any:
        """A value of a parameter's domain."""
        ...


class Unsuited(Exception):
    """A chooser has nothing to choose."""


@dataclass(frozen=True, eq=False)
class Space:
    """Places of a chain, in order. Names of what varies: `place 1` (which alternative, where there
    are several) and `technique.parameter` (`technique#2.parameter` where it stands again).

    The space is conditional on the rules of the chain itself: an alternative is offered only after
    what it may follow, and a parameter varies only where its technique reads it.
    """

    slots: tuple[Slot, ...]

    def suggest(self, trial: Trial) -> list[Entry]:
        """A chain, as a recipe's candidate is written, by what a trial suggests."""
        return self.walk(_Suggesting(trial))

    def encode(self, entries: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any] | None:
        """What a trial would have to suggest so that a given chain comes out; None: it cannot."""
        implied = techniques.implied(entries)
        for path, given in itertools.product(self._paths(), (entries, [*entries, *implied])):
            chooser = _Matching(path, given)
            with contextlib.suppress(Unsuited):
                self.walk(chooser)
                return chooser.found
        return None

    def domains(self) -> dict[str, Domain | tuple[str, ...]]:
        """Everything that varies, by name: names of alternatives, domains of parameters."""
        found: dict[str, Any] = {}
        steps = [step for slot in self.slots for way in slot.alternatives for step in way]
        choices = [d for step in steps for d in step.free.values() if isinstance(d, Choices)]
        turns = max((len(each.values) for each in choices), default=1)
        for path, turn in itertools.product(self._paths(), range(turns)):
            chooser = _Listing(path, turn)
            with contextlib.suppress(Unsuited, InputError):
                self.walk(chooser)
                found |= chooser.found
        return found

    def problems(self) -> list[Problem]:
        """What is wrong with it as a whole: nothing varies, or nothing can stand at a place."""
        for path in self._paths():
            chooser = _Listing(path)
            try:
                self.walk(chooser)
            except InputError as error:
                return [*error.problems]
            except Unsuited:
                continue
        if not self.domains():
            return [Problem(WHERE, "nothing varies", "a range, a list, optional or one_of")]
        return []

    def walk(self, chooser: Chooser) -> list[Entry]:
        """The chain of a chooser's choices.

        Raises:
            InputError: nothing may stand at a place after what was chosen before.
            Unsuited: as the chooser does.
        """
        entries: list[Entry] = []
        for number, slot in enumerate(self.slots):
            offered, refused = _offered(slot, entries)
            if not offered:
                raise InputError(
                    dataclasses.replace(refused[0], where=f"{WHERE}[{number}]") if refused else ""
                )
            whole = len(offered) == len(slot.alternatives)
            among = "" if whole else f" ({', '.join(map(title, offered))})"
            for step in chooser.place(number, f"place {number + 1}{among}", offered):
                given = dict(step.fixed)
                for key in step.free:
                    if _reads(entries, step, given, key):
                        name = f"{self._labels[id(step)]}.{key}"
                        given[key] = chooser.value(step, key, name)
                entries.append({step.technique: given})
        return entries

    @functools.cached_property
    def _labels(self) -> dict[int, str]:
        """By the identity of a step: `ptq`, and `ptq#2` where the technique stands a second time
        in the space, in whatever alternative, since there it may vary otherwise."""
        seen: Counter[str] = Counter()
        labels = {}
        for step in (s for slot in self.slots for a in slot.alternatives for s in a):
            seen[step.technique] += 1
            number = seen[step.technique]
            labels[id(step)] = step.technique + (f"#{number}" if number > 1 else "")
        return labels

    def _paths(self) -> Iterator[tuple[Alternative, ...]]:
        every = itertools.product(*(s.alternatives for s in self.slots))
        return itertools.islice(every, COMBINATIONS)


@dataclass(frozen=True, eq=False)
class _Suggesting:
    trial: Trial

    def place(self, number: int, name: str, offered: Sequence[Alternative]) -> Alternative:  # noqa: ARG002 (the protocol's)
        if len(offered) == 1:
            return offered[0]
        titles = [title(a) for a in offered]
        return offered[titles.index(self.trial.suggest_categorical(name, titles))]

    def value(self, step: Step, key: str, name: str) -> Any:
        return step.free[key].suggest(self.trial, name)


@dataclass(eq=False)
class _Listing:
    """Goes one way through the space and notes what varies on it; `turn`: where there is a choice
    of values, its number."""

    path: tuple[Alternative, ...]
    turn: int | None = None
    found: dict[str, Any] = field(default_factory=dict)

    def place(self, number: int, name: str, offered: Sequence[Alternative]) -> Alternative:
        wanted = self.path[number]
        if wanted not in offered:
            raise Unsuited
        if len(offered) > 1:
            self.found[name] = tuple(title(a) for a in offered)
        return wanted

    def value(self, step: Step, key: str, name: str) -> Any:
        among = self.found[name] = step.free[key]
        if self.turn is None or not isinstance(among, Choices):
            return among.some()
        return among.values[self.turn % len(among.values)]


@dataclass(eq=False)
class _Matching:
    """Goes the way of one chain, if there is one."""

    path: tuple[Alternative, ...]
    entries: Sequence[Mapping[str, Mapping[str, Any]]]
    found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = [step for alternative in self.path for step in alternative]
        names = [name for entry in self.entries for name in entry]
        self.wanted: dict[int, Mapping[str, Any]] = {}
        self.suited = [s.technique for s in steps] == names
        for step, entry in zip(steps, self.entries, strict=False):
            if not self.suited:
                return
            defaults = _defaults(step.technique)
            wanted = self.wanted[id(step)] = defaults | dict(entry[step.technique])
            given = defaults | dict(step.fixed)
            self.suited &= all(v == given[k] for k, v in wanted.items() if k not in step.free)

    def place(self, number: int, name: str, offered: Sequence[Alternative]) -> Alternative:
        wanted = self.path[number]
        if wanted not in offered or not self.suited:
            raise Unsuited
        if len(offered) > 1:
            self.found[name] = title(wanted)
        return wanted

    def value(self, step: Step, key: str, name: str) -> Any:
        if not self.suited or id(step) not in self.wanted:
            raise Unsuited
        value = self.wanted[id(step)][key]
        if not step.free[key].holds(value):
            raise Unsuited
        self.found[name] = value
        return value


def title(alternative: Alternative) -> str:
    """What an alternative is called: `none`, `qat`, `finetune+ptq`."""
    return "+".join(step.technique for step in alternative) or NONE


def _offered(slot: Slot, before: list[Entry]) -> tuple[list[Alternative], list[Problem]]:
    """The alternatives that may follow, and why the others may not."""
    offered, refused = [], []
    for alternative in slot.alternatives:
        entries = [*before]
        for step in alternative:
            given = dict(step.fixed)
            for key, what in step.free.items():
                if _reads(entries, step, given, key):
                    given[key] = what.some()
            entries.append({step.technique: given})
        problems = techniques.problems(entries, WHERE)
        refused += problems
        if not problems:
            offered.append(alternative)
    return offered, refused


def _reads(before: list[Entry], step: Step, given: Mapping[str, Any], key: str) -> bool:
    """Whether a parameter would be read; what would not be is refused in a chain, so a value of it
    is a problem more."""
    without = techniques.problems([*before, {step.technique: dict(given)}], WHERE)
    beside = {**given, key: step.free[key].some()}
    return len(techniques.problems([*before, {step.technique: beside}], WHERE)) <= len(without)


def check(raw: Mapping[str, Any]) -> list[Problem]:
    """The problems of a raw recipe's space."""
    section = raw.get("search")
    given = section.get("space") if isinstance(section, Mapping) else None
    if not isinstance(given, list) or not all(isinstance(e, Mapping) for e in given):
        return []  # auto, or the schema has said so
    found = read(given)
    return found if isinstance(found, list) else found.problems()


def read(entries: Sequence[Mapping[str, Any]]) -> Space | list[Problem]:
    """A recipe's space, or what is wrong with it.

    An entry names one technique with its parameters (each a value, a list, a range, or `auto`; the
    technique itself `auto`: all that it proposes), or several under `one_of`, each a technique or a
    list of them. `optional: true` beside it: it may also be left out.
    """
    if not entries:
        return [Problem(WHERE, "no technique is given", "a list of techniques, or auto")]
    slots: list[Slot] = []
    problems: list[Problem] = []
    for number, entry in enumerate(entries):
        found = _slot(entry, f"{WHERE}[{number}]")
        if isinstance(found, Slot):
            slots.append(found)
        else:
            problems += found
    return problems or Space(tuple(slots))


def _slot(entry: Mapping[str, Any], where: str) -> Slot | list[Problem]:
    optional = entry.get(OPTIONAL, False)
    if not isinstance(optional, bool):
        return [Problem(f"{where}.{OPTIONAL}", f"{optional!r} is not allowed", "true | false")]
    rest = {key: value for key, value in entry.items() if key != OPTIONAL}
    if ONE_OF in rest:
        given = rest.pop(ONE_OF)
        if rest:
            return [Problem(where, f"{', '.join(rest)} beside {ONE_OF}", f"{ONE_OF} alone")]
        if not isinstance(given, list) or not given:
            return [Problem(f"{where}.{ONE_OF}", f"{given!r}", "a list of techniques")]
        places = [(f"{where}.{ONE_OF}[{n}]", each) for n, each in enumerate(given)]
    else:
        places = [(where, rest)]
    alternatives: list[Alternative] = [()] if optional else []
    problems: list[Problem] = []
    for place, each in places:
        steps = [_step(e, place) for e in (each if isinstance(each, list) else [each])]
        problems += [p for step in steps if isinstance(step, list) for p in step]
        alternatives.append(tuple(step for step in steps if isinstance(step, Step)))
    slot = Slot(tuple(alternatives))
    titles = [title(a) for a in slot.alternatives]
    if not problems and len(set(titles)) < len(titles):
        twice = "the same techniques stand there twice"
        problems.append(Problem(where, twice, "each once, with lists or ranges of parameters"))
    return problems or slot


def _step(entry: Any, where: str) -> Step | list[Problem]:
    if not isinstance(entry, Mapping) or len(entry) != 1:
        named = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else repr(entry)
        return [Problem(where, f"{named or 'nothing'} given", "one technique: {parameters}")]
    ((name, given),) = entry.items()
    try:
        fields = _bounds(str(name))
    except InputError as error:
        return [dataclasses.replace(p, where=where) for p in error.problems]
    inside = f"{where}.{name}"
    if given == AUTO:
        given = {key: AUTO for key, bounds in fields.items() if bounds.search is not None}
    if not isinstance(given, Mapping):
        return [Problem(inside, f"{given!r} given", "a mapping of parameters, or auto")]
    return _parameters(str(name), given, fields, inside)


def _parameters(
    name: str, given: Mapping[str, Any], fields: Mapping[str, techniques.Bounds], inside: str
) -> Step | list[Problem]:
    fixed: dict[str, Any] = {}
    free: dict[str, Domain] = {}
    problems: list[Problem] = []
    for key, value in given.items():
        bounds = fields.get(key)
        place = f"{inside}.{key}"
        if bounds is None:
            hint = did_you_mean(str(key), fields)
            problems.append(Problem(place, "unknown key", ", ".join(fields), hint))
        elif isinstance(value, list | Mapping) or (value == AUTO and not bounds.admits(AUTO)):
            found = domain(bounds, value, place)
            if isinstance(found, list):
                problems += found
            else:
                free[key] = found
        elif not bounds.admits(value):
            hint = did_you_mean(str(value), map(str, bounds.choices or ()))
            problems.append(Problem(place, f"{value!r} is not allowed", str(bounds), hint))
        else:
            fixed[key] = value
    ordered = {key: free[key] for key in fields if key in free}
    return problems or Step(name, fixed, ordered)


class _Unbounded(techniques.Bounds):
    """A parameter of a function of a user's own, which says nothing of it but its default."""

    def __str__(self) -> str:
        return "numbers, texts, truth values"

    def admits(self, value: Any) -> bool:
        return value is None or isinstance(value, int | float | str)


def _bounds(technique: str) -> dict[str, techniques.Bounds]:
    found: Any = techniques.find(technique)
    if not hasattr(found, "function"):
        return {f.name: f.metadata["bounds"] for f in dataclasses.fields(found)}
    return {
        name: _Unbounded(int if type(default) is int else float)
        for name, default in _keywords(found.function).items()
    }


def _defaults(technique: str) -> dict[str, Any]:
    found: Any = techniques.find(technique)
    if not hasattr(found, "function"):
        return {f.name: f.default for f in dataclasses.fields(found)}
    given = _keywords(found.function)
    return {n: default for n, default in given.items() if default is not inspect.Parameter.empty}


def _keywords(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function `(twin, context, **parameters)` may be given, with its defaults."""
    return {p.name: p.default for p in [*inspect.signature(function).parameters.values()][2:]}
