"""What a chain without a deploy technique ships: the twin as it stands, in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netzip_mlflow.deployable import Deployable, pack_zeros

if TYPE_CHECKING:
    from netzip_mlflow.techniques.context import Context
    from netzip_mlflow.twin import Twin

__all__ = ["deploy"]


def deploy(twin: Twin, context: Context) -> Deployable:
    """The twin as it stands, in FP32: what a chain without a deploy technique ships.

    Zeros that pruning made are packed where that makes the file smaller.

    Raises:
        NetzipError: torch cannot export the network.
    """
    source = context.exports(twin)
    model = pack_zeros(source.model) if twin.masks else source.model
    return Deployable.of(model, twin, source, task=context.task.name)
