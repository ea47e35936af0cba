"""Shares that keep the classes' proportions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.data.stratify import by_groups, by_stratum, quotas


@st.composite
def _counts_and_wanted(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    counts = np.array(draw(st.lists(st.integers(0, 60), min_size=1, max_size=12)))
    counts[draw(st.integers(0, len(counts) - 1))] += 1
    return counts, draw(st.integers(1, int(counts.sum())))


@given(_counts_and_wanted())
def test_quotas_sum_up_stay_within_the_counts_and_leave_no_class_out(case) -> None:
    counts, wanted = case
    quota = quotas(counts, wanted)
    assert quota.sum() == wanted
    assert (quota <= counts).all()
    assert (quota >= 0).all()
    if wanted >= np.count_nonzero(counts):
        assert (quota[counts > 0] >= 1).all()


def test_quotas_are_proportional_by_largest_remainder() -> None:
    # exact shares 4.7, 3.1, 1.2 of nine: the one left over goes to the largest remainder
    assert quotas(np.array([47, 31, 12]), 9).tolist() == [5, 3, 1]


def test_a_rare_class_gets_its_one_at_the_cost_of_the_most_favoured() -> None:
    assert quotas(np.array([97, 2, 1]), 10).tolist() == [8, 1, 1]


def test_by_stratum_draws_each_sample_once_and_depends_on_the_seed_only() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    drawn = by_stratum(labels, 20, np.random.default_rng(5))
    again = by_stratum(labels, 20, np.random.default_rng(5))
    other = by_stratum(labels, 20, np.random.default_rng(6))
    assert np.bincount(labels[drawn]).tolist() == [10, 6, 4]
    assert len(np.unique(drawn)) == 20
    np.testing.assert_array_equal(drawn, again)
    assert not np.array_equal(drawn, other)


def test_by_stratum_leaves_out_classes_that_are_not_there() -> None:
    labels = np.array([1, 1, 4, 4])
    assert np.bincount(labels[by_stratum(labels, 2, np.random.default_rng(0))]).tolist() == [
        0,
        1,
        0,
        0,
        1,
    ]


def test_by_groups_takes_whole_groups_near_the_proportions() -> None:
    labels = np.repeat([0, 1], [300, 150])
    groups = np.array([f"track{i // 10}" for i in range(450)])
    for seed in range(5):
        taken = by_groups(labels, groups, 90, np.random.default_rng(seed))
        outside = np.setdiff1d(np.arange(450), taken)
        assert not set(groups[taken]) & set(groups[outside])
        assert np.bincount(labels[taken]).tolist() == [60, 30]


def test_by_groups_takes_nothing_when_every_group_is_far_too_large() -> None:
    labels = np.repeat([0, 1], 50)
    assert not len(by_groups(labels, labels, 10, np.random.default_rng(0)))
