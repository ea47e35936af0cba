"""Whether the size of what a chain ships is known before its training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netzip_mlflow.techniques import Technique

__all__ = ["known", "size_key"]


def known(chain: Sequence[Technique]) -> bool:
    """Whether the file of the untrained chain has the size and the operations of the trained one.

    Each technique says what its size depends on (`Technique.size_depends_on`). The weights that
    come in are known as long as nothing has trained them; zeros as the weights are, and until what
    is trained is rounded to further ones.
    """
    trained = zeros = False
    for technique in chain:
        basis = technique.size_depends_on
        if basis == "training" or (trained and basis != "parameters"):
            return False
        trained |= technique.training_epochs > 0
        if trained and zeros and technique.traits.makes_zeros:
            return False
        zeros |= basis == "zeros"
    return True


def size_key(chain: Sequence[Technique]) -> str:
    """What two chains of equal size have in common: all parameters but those of training."""
    from netzip_mlflow.techniques.trained import Taught

    training = {field.name for field in dataclasses.fields(Taught)}
    parts: list[Any] = []
    for technique in chain:
        given = dataclasses.asdict(technique)  # type: ignore[call-overload]
        sized = {key: value for key, value in given.items() if key not in training}
        parts.append([technique.label().split("(")[0], sized])
    return json.dumps(parts, sort_keys=True, default=str)
