"""What a technique is: `Traits` say it as data, `Technique` is what its class offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from netzip_mlflow.deployable import Deployable
    from netzip_mlflow.techniques.context import Context
    from netzip_mlflow.twin import Twin

__all__ = ["Technique", "Traits"]

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
