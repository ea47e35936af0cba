"""Cutting a source's parts into train, calibration, validation and test.

A bare fraction or count is taken from train. A fraction is one of the whole part. Fractions and
counts are stratified, as the task says, and seeded; `first` takes samples in the part's own order.
Where several rules cut one part, those with `first` go first, validation before test; then test,
then validation: so the test split does not depend on how large validation is. Without a rule, test
is the shipped part "test", less what validation took from it. Train is what is left of the part
"train". A shipped part "validation" is used only where a rule names it (`of: validation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from netzip_mlflow.data.source import Part, Source
from netzip_mlflow.data.stratify import by_groups, by_stratum
from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.recipe import DataSpec, SplitRule

__all__ = ["Cut", "calibrate", "cut"]

STREAM = {"validation": 1, "test": 2, "calibration": 3}  # each split draws from its own stream


@dataclass(frozen=True, eq=False)
class Cut:
    """Which samples of which part a split holds; indices are int64 (n,)."""

    part: str
    indices: np.ndarray


def cut(
    source: Source, spec: DataSpec, seed: int, strata: Mapping[str, np.ndarray]
) -> dict[str, Cut]:
    """Train, validation and test, sharing no index, in the part's order.

    Args:
        strata: by part, the stratum of each sample, int64 (n,) from 0 on.

    Raises:
        InputError: a rule names no part, or wants more than there is; nothing is left.
    """
    rules = {"validation": _rule(spec.validation)}
    if spec.test is not None:
        rules["test"] = _rule(spec.test)
    _require_parts(source, rules)
    free = {name: np.ones(len(part), dtype=bool) for name, part in source.parts.items()}
    cuts: dict[str, Cut] = {}
    for split in _order(rules):
        rule = rules[split]
        rng = np.random.default_rng([seed, STREAM[split]])
        part = source.parts[rule.of]
        indices = _take(part, strata[rule.of], free[rule.of], rule, rng, f"data.{split}")
        free[rule.of][indices] = False
        cuts[split] = Cut(rule.of, indices)
    if "test" not in cuts:
        cuts["test"] = Cut("test", np.flatnonzero(free["test"]))
    cuts["train"] = Cut("train", np.flatnonzero(free["train"]))
    empty = [split for split, c in cuts.items() if not len(c.indices)]
    if empty:
        hint = "ask less of data.validation or data.test"
        raise InputError([Problem("data", f"{split} is empty", hint=hint) for split in empty])
    return cuts


def calibrate(strata: np.ndarray, wanted: float, seed: int) -> np.ndarray:
    """Positions of the calibration samples within train, stratified, in a seeded order.

    `strata`: of the samples of train, int64 (n,).

    They stay in train too. The order is drawn as well, so that the first few represent all.

    Raises:
        InputError: more are wanted than train has.
    """
    n = _number(wanted, len(strata))
    if n > len(strata):
        allowed = f"1 to {len(strata)}, or a fraction"
        raise InputError(Problem("data.calibration", f"{n} of {len(strata)} samples", allowed))
    rng = np.random.default_rng([seed, STREAM["calibration"]])
    return rng.permutation(by_stratum(strata, n, rng))


def _rule(given: float | SplitRule) -> SplitRule:
    if isinstance(given, SplitRule):
        return given
    return SplitRule(count=given) if isinstance(given, int) else SplitRule(fraction=given)


def _order(rules: Mapping[str, SplitRule]) -> list[str]:
    first = [split for split in ("validation", "test") if split in rules and rules[split].first]
    return first + [s for s in ("test", "validation") if s in rules and s not in first]


def _require_parts(source: Source, rules: Mapping[str, SplitRule]) -> None:
    parts = list(source.parts)
    problems = [
        Problem(
            f"data.{split}.of",
            f"no part {rule.of!r} in {source.name}",
            ", ".join(parts),
            did_you_mean(rule.of, parts),
        )
        for split, rule in rules.items()
        if rule.of not in parts
    ]
    if "train" not in parts:
        problems.append(Problem("data", f"{source.name} has no part 'train'", "parts with train"))
    if "test" not in rules and "test" not in parts:
        what = f"is missing, and {source.name} ships no test part (it has {', '.join(parts)})"
        hint = "for example `test: 0.2`, or `test: {fraction: 0.5, of: validation}`"
        problems.append(Problem("data.test", what, "a fraction, a count or a rule", hint))
    if problems:
        raise InputError(problems)


def _number(wanted: float, whole: int) -> int:
    return wanted if isinstance(wanted, int) else max(1, round(wanted * whole))


def _take(
    part: Part,
    strata: np.ndarray,
    free: np.ndarray,
    rule: SplitRule,
    rng: np.random.Generator,
    where: str,
) -> np.ndarray:
    """The indices that a rule takes from what is free of a part, ascending."""
    available = np.flatnonzero(free)
    wanted = rule.first or rule.count or _number(rule.fraction or 0.0, len(part))
    if wanted > len(available):
        what = f"wants {wanted} samples of part {rule.of!r}, which has {len(available)} left"
        raise InputError(Problem(where, what, f"1 to {len(available)}"))
    if rule.first:
        taken = available[:wanted]
        _require_whole_groups(part.groups, taken, available[wanted:], where)
        return taken
    held = strata[available]
    if part.groups is None:
        return available[by_stratum(held, wanted, rng)]
    taken = by_groups(held, part.groups[available], wanted, rng)
    if not len(taken):
        what = f"no group of part {rule.of!r} is small enough for {wanted} samples"
        raise InputError(Problem(where, what, "a larger share, or smaller groups"))
    return available[taken]


def _require_whole_groups(
    groups: np.ndarray | None, taken: np.ndarray, left: np.ndarray, where: str
) -> None:
    if groups is None:
        return
    torn = np.intersect1d(groups[taken], groups[left])
    if len(torn):
        what = f"the first {len(taken)} samples cut group {torn[0]} in two"
        raise InputError(Problem(where, what, "a number at which no group is cut"))
