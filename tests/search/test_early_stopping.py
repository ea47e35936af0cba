from __future__ import annotations

import pytest

from netzip_mlflow.search.early_stopping import hopeless

# accuracy on validation by epoch, as seen with ResNet-20 (baseline 0.8875)
CODE_BOOK = [0.7675, 0.816, 0.755, 0.8355, 0.824, 0.84, 0.841, 0.87]
HALF = [0.725, 0.806, 0.8245, 0.8175, 0.81, 0.8495, 0.851, 0.854, 0.8595, 0.865, 0.867, 0.871]
FOUR_BITS = [0.864, 0.878, 0.869, 0.883, 0.8875, 0.888, 0.887, 0.8835]


# points below the baseline by epoch, as seen with ResNet-8 on digits
STEEP = {
    "qat(ternary)": [12.26, 1.95, 0.84, 0.56],
    "prune_channels(0.2)+qat(int4)": [6.69, 0.28],
    "prune_channels(0.2)+qat(ternary)": [8.08, 6.69, 1.11, 0.0],
    "share_kernels(5)": [41.23, 16.43, 12.26, 6.41, 9.19, 0.28, 2.79, 2.51],
    "prune_channels(0.2)+share_kernels(5)": [39.28, 9.47, 5.57, 2.51, 1.67, 1.11, 2.23, 0.84],
    "prune_channels(0.39)+binarise": [79.39, 29.25, 22.84, 3.9],
    "factorise(0.70)+binarise": [85.52, 69.64, 14.76, 6.13],
}


@pytest.mark.parametrize("gaps", STEEP.values(), ids=STEEP)
def test_a_training_may_come_from_far_away(gaps):
    limit = max(1.0, min(gaps))
    history = [1 - gap / 100 for gap in gaps]
    for seen in range(1, len(history) + 1):
        assert not hopeless(history[:seen], len(history), 1.0, limit)


@pytest.mark.parametrize("history", [CODE_BOOK, HALF, FOUR_BITS])
def test_no_training_is_stopped_that_comes_within_the_limit_in_the_end(history):
    limit = max(0.0, 100 * (0.8875 - max(history)))
    for seen in range(1, len(history) + 1):
        assert not hopeless(history[:seen], len(history), 0.8875, limit)


def test_a_network_at_chance_is_stopped_after_its_first_epoch():
    assert hopeless([0.1], 8, 0.8875, 1.0)


@pytest.mark.parametrize(
    ("epochs", "gap", "stopped"),
    # of eight epochs; a limit of a point and half a point of chance, 50, 20 and 8 times
    [(3, 74, False), (3, 76, True), (4, 29, False), (4, 31, True), (6, 11, False), (6, 13, True)],
)
def test_the_later_the_nearer(epochs, gap, stopped):
    history = [0.05] * (epochs - 1) + [0.8875 - gap / 100]
    assert hopeless(history, 8, 0.8875, 1.0) == stopped


def test_nothing_is_stopped_before_it_began_or_when_it_is_over():
    assert not hopeless([], 8, 0.9, 0.0)
    assert not hopeless([0.1, 0.1], 2, 0.9, 0.0)
