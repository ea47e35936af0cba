"""The basis of a score: which accuracy, speed and size it uses, zeta and the lambdas.

A ratio without its basis means nothing (paper, section 5): the label stands beside every score.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.scoring.columns import accuracies

if TYPE_CHECKING:
    from netzip_mlflow.recipe import ScoreSpec

__all__ = ["ENERGY", "SIZES", "SPEEDS", "Basis", "Weights"]

SPEEDS = {
    "chats": "speed/chats",
    "latency": "speed/latency_ms",
    "macs": "speed/macs",
    "ops": "speed/ops",
}
SIZES = {
    "disk": "size/disk_bytes",
    "zip": "size/zip_bytes",
    "params": "size/parameters",
    "nonzero": "size/nonzero",
    "cpu": "size/cpu_percent",
    "ram": "size/ram_bytes",
}
ENERGY = "energy/joules"
_ACCURACY_NAME = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class Weights:
    """The lambdas of OCS, one per term; finite and not negative.

    Raises:
        InputError: for a negative or non-finite weight.
    """

    P: float = 1.0
    S: float = 1.0
    C: float = 1.0
    E: float = 1.0

    def __post_init__(self) -> None:
        problems = [
            Problem(f"weights.{f.name}", f"{getattr(self, f.name)!r}", "a finite number, 0 or more")
            for f in fields(self)
            if not (math.isfinite(getattr(self, f.name)) and getattr(self, f.name) >= 0)
        ]
        if problems:
            raise InputError(problems)

    @classmethod
    def parse(cls, text: str) -> Weights:
        """Read ``P=1,S=2``; a term that is not named keeps the weight 1.

        Raises:
            InputError: for another form, an unknown term or one given twice.

        >>> Weights.parse("S=2,E=0")
        Weights(P=1.0, S=2.0, C=1.0, E=0.0)
        """
        given: dict[str, float] = {}
        terms = [f.name for f in fields(cls)]
        for part in filter(None, (p.strip() for p in text.split(","))):
            term, separator, value = (p.strip() for p in part.partition("="))
            try:
                number = float(value)
            except ValueError:
                number = None
            if not separator or number is None:
                raise InputError(Problem("weights", f"{part!r}", "TERM=NUMBER, as in P=1,S=2"))
            if term not in terms or term in given:
                what = "given twice" if term in given else "no such term"
                raise InputError(Problem(f"weights.{term}", what, ", ".join(terms)))
            given[term] = number
        return cls(**given)


@dataclass(frozen=True)
class Basis:
    """What a score is made of.

    `accuracy` is the part after ``accuracy/`` of a metric key; `speed` is one
    of `SPEEDS`, `size` one of `SIZES`; `zeta` is the paper's constant of the hardware.

    Raises:
        InputError: naming every field that is not allowed.
    """

    accuracy: str = field(default_factory=lambda: accuracies()[0])
    speed: str = "chats"
    size: str = "disk"
    weights: Weights = Weights()
    zeta: float = 1.0

    def __post_init__(self) -> None:
        problems = [
            *_one_of("speed", self.speed, SPEEDS),
            *_one_of("size", self.size, SIZES),
        ]
        if not _ACCURACY_NAME.fullmatch(self.accuracy):
            allowed = f"the name of an accuracy metric, as {' or '.join(accuracies()[:2])}"
            problems.append(Problem("accuracy", f"{self.accuracy!r}", allowed))
        if not (math.isfinite(self.zeta) and self.zeta > 0):
            problems.append(Problem("zeta", f"{self.zeta!r}", "a finite number above 0"))
        if problems:
            raise InputError(problems)

    @classmethod
    def from_spec(cls, spec: ScoreSpec, primary: str | None = None) -> Basis:
        """The basis that a recipe's score section asks for; `primary`: the task's accuracy."""
        weights = Weights(**{f.name: getattr(spec.weights, f.name) for f in fields(Weights)})
        accuracy = spec.accuracy or primary or accuracies()[0]
        return cls(accuracy, spec.speed, spec.size, weights, spec.zeta)

    @property
    def accuracy_key(self) -> str:
        return f"accuracy/{self.accuracy}"

    @property
    def speed_key(self) -> str:
        return SPEEDS[self.speed]

    @property
    def size_key(self) -> str:
        return SIZES[self.size]

    def label(self) -> str:
        """One line that names everything: the tag ``netzip.basis``.

        >>> Basis().label()
        'accuracy=top1 speed=chats size=disk zeta=1 lambdas=1,1,1,1'
        """
        lambdas = ",".join(f"{getattr(self.weights, f.name):.12g}" for f in fields(Weights))
        return (
            f"accuracy={self.accuracy} speed={self.speed} size={self.size} "
            f"zeta={self.zeta:.12g} lambdas={lambdas}"
        )


def _one_of(field: str, given: str, allowed: Iterable[str]) -> list[Problem]:
    names = list(allowed)
    if given in names:
        return []
    return [Problem(field, f"{given!r}", ", ".join(names), did_you_mean(given, names))]
