"""The ratios P, S, C, E, OCS, and the ones that stand beside them.

Every function takes plain mappings of metric keys (DESIGN.md, section 3) to numbers, in the units
that the keys name, the baseline's and the candidate's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.scoring.basis import ENERGY, Basis

__all__ = ["Metrics", "Score", "other_ratios", "prefix", "score"]

Metrics = Mapping[str, float]
INTERLEAVED = "ratio/its"
_PREFIXES = {"test": "", "validation": "validation/"}


@dataclass(frozen=True)
class Score:
    """P, S, C, E (None without a meter) and OCS of one candidate, with all that they came from.

    `terms` names the terms that took part (``P,S,C`` or ``P,S,C,E``): scores with different terms
    are never ranked together. `operands` maps a metric key to its values (baseline, candidate).
    """

    P: float
    S: float
    C: float
    E: float | None
    ocs: float
    terms: str
    basis: Basis
    split: str
    operands: Mapping[str, tuple[float, float]]

    def metrics(self) -> dict[str, float]:
        """The metric keys to log. P and OCS carry the split's prefix; S, C, E know no split."""
        before = prefix(self.split)
        found = {f"{before}ratio/P": self.P, "ratio/S": self.S, "ratio/C": self.C}
        if self.E is not None:
            found["ratio/E"] = self.E
        return found | {f"{before}score/ocs": self.ocs}


def prefix(split: str) -> str:
    """What stands before a metric key of a split: nothing for test, ``validation/``.

    Raises:
        ValueError: for any other split; nothing else is ever scored.
    """
    if split not in _PREFIXES:
        raise ValueError(f"split must be one of {', '.join(_PREFIXES)}; got {split!r}")
    return _PREFIXES[split]


def score(
    baseline: Metrics,
    candidate: Metrics,
    basis: Basis,
    *,
    split: str = "test",
    names: tuple[str, str] = ("baseline", "candidate"),
) -> Score:
    """OCS = P (l1 (P-1) + l2 (S-1) + l3 (C-1) + l4 (E-1)) and its ratios (the paper, eq. 1-9).

    E takes part when both mappings hold ``energy/joules``; leave an estimate out of them. On the
    latency basis, S is the interleaved ``ratio/its`` of the candidate where it has been measured.

    Args:
        baseline: metrics of the uncompressed model.
        candidate: metrics of the compressed one.
        basis: which accuracy, speed and size; zeta; the lambdas.
        split: whose accuracy, ``test`` or ``validation``.
        names: what errors call the two rows.

    Raises:
        InputError: an operand is missing, not finite, or zero where it must not be; all at once.

    >>> plain = {"accuracy/top1": 0.8, "speed/chats": 64.0, "size/disk_bytes": 100.0}
    >>> small = {"accuracy/top1": 0.8, "speed/chats": 16.0, "size/disk_bytes": 25.0}
    >>> score(plain, small, Basis()).ocs
    6.0
    """
    operands = _Operands(baseline, candidate, names)
    accuracy = operands.pair(prefix(split) + basis.accuracy_key, candidate_may_be_zero=True)
    speed = _speed(operands, basis)
    size = operands.pair(basis.size_key)
    metered = ENERGY in baseline and ENERGY in candidate
    energy = operands.pair(ENERGY) if metered else None
    zeta = _zeta(operands, basis)
    operands.check()

    P, S, C = accuracy[1] / accuracy[0], zeta * speed[0] / speed[1], size[0] / size[1]
    E = energy[0] / energy[1] if energy is not None else None
    weights = basis.weights
    gain = weights.P * (P - 1) + weights.S * (S - 1) + weights.C * (C - 1)
    if E is not None:
        gain += weights.E * (E - 1)
    terms = "P,S,C" if E is None else "P,S,C,E"
    return Score(P, S, C, E, P * gain, terms, basis, split, MappingProxyType(operands.seen))


def other_ratios(
    baseline: Metrics,
    candidate: Metrics,
    basis: Basis,
    *,
    split: str = "test",
    names: tuple[str, str] = ("baseline", "candidate"),
) -> dict[str, float]:
    """The ratios that are shown beside the score, by metric key; absent where operands are.

    ``ratio/pcr`` parameters, ``ratio/its`` latency (the interleaved one where measured),
    ``ratio/esr`` energy, ``ratio/zip`` zipped size, each baseline / candidate; ``ratio/al``, the
    relative loss of accuracy, with the split's prefix.

    Raises:
        InputError: an operand is there but is not finite, or zero; all at once.
    """
    operands = _Operands(baseline, candidate, names)
    found: dict[str, float] = {}
    for key, operand in (
        ("ratio/pcr", "size/parameters"),
        ("ratio/its", "speed/latency_ms"),
        ("ratio/esr", ENERGY),
        ("ratio/zip", "size/zip_bytes"),
    ):
        if key == INTERLEAVED and INTERLEAVED in candidate:
            found[key] = operands.interleaved()
        elif operand in baseline and operand in candidate:
            before, after = operands.pair(operand)
            found[key] = before / after
    accuracy = prefix(split) + basis.accuracy_key
    if accuracy in baseline and accuracy in candidate:
        before, after = operands.pair(accuracy, candidate_may_be_zero=True)
        found[f"{prefix(split)}ratio/al"] = (before - after) / before
    operands.check()
    return found


class _Operands:
    """Takes operands out of two rows, remembers them, and collects what is wrong with them."""

    def __init__(self, baseline: Metrics, candidate: Metrics, names: tuple[str, str]) -> None:
        self.rows = ((names[0], baseline), (names[1], candidate))
        self.seen: dict[str, tuple[float, float]] = {}
        self.problems: list[Problem] = []

    def pair(self, key: str, *, candidate_may_be_zero: bool = False) -> tuple[float, float]:
        """Values (baseline, candidate) of a key; 1 for a faulty one, until `check` raises."""
        values = []
        for i, (row, metrics) in enumerate(self.rows):
            zero = candidate_may_be_zero and i == 1
            values.append(self._value(row, key, metrics.get(key), zero=zero))
        self.seen[key] = (values[0], values[1])
        return self.seen[key]

    def interleaved(self) -> float:
        row, metrics = self.rows[1]
        value = self._value(row, INTERLEAVED, metrics.get(INTERLEAVED), zero=False)
        self.seen[INTERLEAVED] = (1.0, value)
        return value

    def _value(self, row: str, key: str, value: float | None, *, zero: bool) -> float:
        allowed = "a finite number, 0 or more" if zero else "a finite number above 0"
        if value is None:
            self._fault(row, key, "is missing", allowed)
        elif not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            self._fault(row, key, f"is {value!r}", allowed)
        else:
            return float(value)
        return 1.0

    def _fault(self, row: str, key: str, what: str, allowed: str) -> None:
        problem = Problem(f"row {row!r}, column {key!r}", what, allowed)
        if problem not in self.problems:
            self.problems.append(problem)

    def check(self) -> None:
        if self.problems:
            raise InputError(self.problems)


def _speed(operands: _Operands, basis: Basis) -> tuple[float, float]:
    if basis.speed == "latency" and INTERLEAVED in operands.rows[1][1]:
        return operands.interleaved(), 1.0
    return operands.pair(basis.speed_key)


def _zeta(operands: _Operands, basis: Basis) -> float:
    """zeta where the mean bit width, CHATS / OPs, differs between the two rows; else 1.

    MACs stand in for OPs where only they are known: the factor 2 cancels in the comparison.
    """
    if basis.zeta == 1 or basis.speed != "chats":
        return 1.0
    known = [k for k in ("speed/ops", "speed/macs") if all(k in m for _, m in operands.rows)]
    ops = operands.pair(known[0] if known else "speed/ops")
    chats = operands.pair(basis.speed_key)
    same = math.isclose(chats[0] / ops[0], chats[1] / ops[1], rel_tol=1e-9)
    return 1.0 if same else basis.zeta
