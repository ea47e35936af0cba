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

    Each technique says what its sizes hang on (`sized_by`): nothing but its parameters; the
    `weights` that it is given, which are known as long as nothing has trained them; `zeros`, which
    are known as the weights are, and until what is trained is rounded to further ones; `training`.
    """
    trained = zeros = False
    for technique in chain:
        hangs_on = getattr(technique, "sized_by", None)
        if not technique.traits.size_known or hangs_on == "training":
            return False
        if trained and hangs_on is not None:
            return False
        trained |= getattr(technique, "training_epochs", 0) > 0
        if trained and zeros and getattr(technique, "makes_zeros", True):
            return False
        zeros |= hangs_on == "zeros"
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
