"""Fine-tuning: more training of the twin as it stands; pruned weights stay zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from netzip_mlflow.techniques.context import Context
from netzip_mlflow.techniques.protocol import Traits
from netzip_mlflow.techniques.trained import Taught

if TYPE_CHECKING:
    from netzip_mlflow.twin import Twin

__all__ = ["Finetune"]


@dataclass(frozen=True)
class Finetune(Taught):
    """Trains on the training split; the epoch that is best on validation is kept, and the twin as
    it came counts as epoch 0, so that fine-tuning never returns something worse than it was given
    (on validation).
    """

    name: ClassVar[str] = "finetune"
    traits: ClassVar[Traits] = Traits(
        family="training",
        kind="float",
        summary="more training, masks kept, optionally with the baseline as teacher",
        needs_training=True,
        makes_zeros=False,
        searched=False,
        starts=({"epochs": 4, "lr": 0.03},),
    )

    def label(self) -> str:
        return "finetune(teacher)" if self.teacher else "finetune"

    def apply(self, twin: Twin, context: Context) -> Twin:
        """A trained copy.

        Raises:
            NetzipError: a teacher is wanted and there is none, or it does not fit; or the loss
                became non-finite.
        """
        return self.train(twin, context).replace(chain=(*twin.chain, self.label()))
