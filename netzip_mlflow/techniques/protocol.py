"""What a technique is: `Traits` say it as data, `Technique` is what its class offers."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from netzip_mlflow.errors import InputError, Problem
from netzip_mlflow.techniques.parameters import parameter_problems

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Deployable
    from netzip_mlflow.techniques.context import Context
    from netzip_mlflow.twin import Twin

__all__ = ["Technique", "Traits"]

Family = Literal["quantisation", "pruning", "distillation", "decomposition", "training", "own"]
SizeBasis = Literal["parameters", "weights", "zeros", "training"]


@dataclass(frozen=True)
class Traits:
    """What a technique is and needs; the same data feed the checks, the lists and the docs.

    `stage` orders the float techniques of a chain by what they would undo: `structure` (layers
    change shape, so that masks would no longer fit) before `sparsity` (zeros kept by masks);
    `weights` anywhere before `grid` (weights lie on the values that the file will store, which
    `ptq` alone reads: `reads_grids`, and then not its own parameters `off_grid`). A grid technique
    says whether it decides for `every_layer`, so that nothing is left for `ptq` to choose, and
    which earlier ones' grids it `keeps`. `needs_calibration` and `needs_training` speak of the
    defaults. `makes_zeros`: whether a weight may be zero after it that was not before.
    `searched`: whether a search tries the technique by itself; not where it is a control, needs to
    know something of the network, or only serves others. `starts`: parameters that did well
    somewhere, from which such a search begins.
    """

    family: Family
    kind: Literal["float", "deploy"]
    summary: str
    stage: Literal["structure", "sparsity", "weights", "grid"] = "weights"
    needs_calibration: bool = False
    needs_training: bool = False
    makes_zeros: bool = True
    reads_grids: bool = False
    off_grid: tuple[str, ...] = ()
    every_layer: bool = False
    keeps: tuple[str, ...] = ()
    searched: bool = True
    starts: tuple[Mapping[str, Any], ...] = ()


class Technique(abc.ABC):
    """Subclassed by a frozen dataclass whose fields are made by `parameter`.

    Attributes:
        name: what its parameters are logged under; ours are those of `registry.TABLE`.

    Raises:
        InputError: where it is made with a parameter out of its bounds.
    """

    name: ClassVar[str]
    traits: ClassVar[Traits]

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        if problems := parameter_problems(type(self), values, self.name):
            raise InputError(problems)

    @property
    def training_epochs(self) -> int:
        """Passes over the training split, all steps together."""
        return 0

    @property
    def size_depends_on(self) -> SizeBasis:
        """What decides the file's size: the parameters alone; with them the weights that come in,
        or their zeros; or what the training makes of them, so that it is not known before."""
        return "parameters"

    @classmethod
    def problems(cls, given: Mapping[str, Any], where: str) -> list[Problem]:
        """What is wrong with parameters as a recipe gives them. Where they depend on one another,
        a subclass adds to this."""
        return parameter_problems(cls, given, where)

    def label(self) -> str:
        """Short text for tables, such as `prune_l1(0.3)`."""
        return self.name

    @abc.abstractmethod
    def apply(self, twin: Twin, context: Context) -> Twin | Deployable:
        """A new twin (kind float) or the deployable (kind deploy); `twin` is untouched.

        Raises:
            NetzipError: the network cannot take the technique.
        """
