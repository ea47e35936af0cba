from __future__ import annotations

import pytest

from netzip_mlflow.search.rules import hopeless

# accuracy on validation by epoch, as seen with ResNet-20 (baseline 0.8875)
CODE_BOOK = [0.7675, 0.816, 0.755, 0.8355, 0.824, 0.84, 0.841, 0.87]
HALF = [0.725, 0.806, 0.8245, 0.8175, 0.81, 0.8495, 0.851, 0.854, 0.8595, 0.865, 0.867, 0.871]
FOUR_BITS = [0.864, 0.878, 0.869, 0.883, 0.8875, 0.888, 0.887, 0.8835]


@pytest.mark.parametrize("history", [CODE_BOOK, HALF, FOUR_BITS])
def test_no_training_is_stopped_that_comes_within_the_limit_in_the_end(history):
    limit = max(0.0, 100 * (0.8875 - max(history)))
    for seen in range(1, len(history) + 1):
        assert not hopeless(history[:seen], len(history), 0.8875, limit)


def test_a_network_at_chance_is_stopped_after_its_first_epoch():
    assert hopeless([0.1], 8, 0.8875, 1.0)


def test_what_is_far_away_after_half_of_the_epochs_is_stopped():
    assert hopeless([0.5, 0.7, 0.78, 0.82], 8, 0.8875, 1.0)
    assert not hopeless([0.5, 0.7, 0.78, 0.85], 8, 0.8875, 1.0)


def test_nothing_is_stopped_before_it_began_or_when_it_is_over():
    assert not hopeless([], 8, 0.9, 0.0)
    assert not hopeless([0.1, 0.1], 2, 0.9, 0.0)
