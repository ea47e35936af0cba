"""Chains of techniques: what is wrong with one, the order, its label."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.techniques.parameters import unread
from netzip_mlflow.techniques.protocol import Technique, Traits
from netzip_mlflow.techniques.registry import TABLE, find

__all__ = ["chain", "check", "implied", "label", "problems"]


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
    if name in TABLE:
        return technique.problems(given, where)
    try:
        faults = technique.problems(given, where)
        if not faults and not isinstance(label := technique(**given).label(), str):
            faults = [Problem(where, f"its label is {label!r}", "a text")]
    except (Exception, SystemExit) as error:  # noqa: BLE001 (it is anyone's code)
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
    keys = known[-1][2].off_grid
    return unread(given, keys, f"{where}.{name}", why, f"without it, or without {whole[0]}")


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
