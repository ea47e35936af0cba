"""What ends a training before its time; a rule of our own: Optuna's know no constraint."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["hopeless"]

EARLY, LATE = 1 / 12, 1 / 4  # what may remain of a gap to the baseline by the end of the training
NOISE = 0.5  # points: of an accuracy on some thousand images


def hopeless(
    history: Sequence[float], epochs: int, baseline: float, max_drop_points: float
) -> bool:
    """Whether a training can no longer come within the constraint.

    The gap to the baseline's accuracy is taken to shrink to no less than a quarter of what it is
    after half of the epochs, and to a twelfth of what it is before: more than was ever seen where a
    training ended within a few points of its baseline. Half a point is left to chance.

    Args:
        history: accuracy on validation after each epoch so far, fractions.
        epochs: how many there will be.
        baseline: the baseline's accuracy on validation, a fraction.
        max_drop_points: the constraint, in points.
    """
    if not history or len(history) >= epochs:
        return False
    gap = 100 * (baseline - max(history))
    left = LATE if 2 * len(history) >= epochs else EARLY
    return gap * left - NOISE > max_drop_points
