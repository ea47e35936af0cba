"""What a network takes and what it answers: the two specs beside a twin, and the check of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow.errors import InputError, Problem

if TYPE_CHECKING:
    import torch

__all__ = ["InputSpec", "OutputSpec", "check", "outputs_of"]

MISFITS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError)


@dataclass(frozen=True)
class InputSpec:
    """One sample as the deployable takes it: float32 in [0, 1], (C, H, W) for images, (C, L) for
    signals; mean and std per channel."""

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.shape[0]:
                raise InputError(
                    f"model.{name}: {len(values)} values given for samples of "
                    f"{self.shape[0]} channels; allowed: one per channel"
                )


@dataclass(frozen=True)
class OutputSpec:
    """What a network answers: names, in order, and the shape of each output for one sample.

    >>> str(OutputSpec.of(digit=(10,), centre=(2,)))
    'digit (10,), centre (2,)'
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, **shapes: tuple[int, ...]) -> OutputSpec:
        """By name."""
        return cls(tuple(shapes), tuple(shapes.values()))

    @classmethod
    def asked(cls, network: torch.nn.Module, shape: Sequence[int], where: str) -> OutputSpec:
        """What a network of one or several outputs answers; without names of its own they are
        called output, or output0, output1, ...

        Raises:
            InputError: it does not take such samples.
        """
        value = _answer(network, shape, where)
        answers = outputs_of(value)
        numbered = ("output",) if len(answers) == 1 else [f"output{i}" for i in range(len(answers))]
        names = value if isinstance(value, Mapping) else numbered
        return cls(tuple(names), tuple(tuple(each.shape[1:]) for each in answers))

    def __str__(self) -> str:
        return ", ".join(f"{n} {s}" for n, s in zip(self.names, self.shapes, strict=True))

    def require(self, values: Sequence[Any], count: int, where: str) -> None:
        """Whether the outputs for `count` samples are these; `where`: whose outputs they are.

        Raises:
            InputError: they are of another number or shape.
        """
        shapes = [tuple(getattr(value, "shape", ())) for value in values]
        if shapes != [(count, *shape) for shape in self.shapes]:
            given = ", ".join(map(str, shapes)) or "nothing"
            what = f"answers {count} samples with {given}"
            raise InputError(Problem(where, what, f"for each sample {self}"))


def outputs_of(value: Any, names: Sequence[str] = ()) -> tuple[Any, ...]:
    """A network's answer as a tuple: of a tensor, a tuple or list, or a mapping (by `names`, where
    it has them all, else in its own order)."""
    if isinstance(value, Mapping):
        return tuple(value[name] for name in (names if {*names} <= {*value} and names else value))
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def check(network: torch.nn.Module, shape: Sequence[int], outputs: OutputSpec, where: str) -> None:
    """Whether a network takes samples of a shape and answers with these outputs; it is run on two
    samples of zeros. `where`: what named the network, for messages.

    Raises:
        InputError: it does not.
    """
    outputs.require(outputs_of(_answer(network, shape, where), outputs.names), 2, where)


def _answer(network: torch.nn.Module, shape: Sequence[int], where: str) -> Any:
    import torch

    parameter = next(network.parameters(), torch.empty(0))
    samples = torch.zeros(2, *shape, device=parameter.device)
    try:
        with torch.no_grad():
            return network(samples)
    except MISFITS as error:
        given = "x".join(map(str, shape))
        raise InputError(Problem(where, f"does not take samples of {given}: {error}")) from error
