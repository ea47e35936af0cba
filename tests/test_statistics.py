from __future__ import annotations

import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from netzip_mlflow import statistics as module
from netzip_mlflow.statistics import (
    Interval,
    bootstrap_drop,
    bootstrap_median_ratio,
    mcnemar,
    median_interval,
)

answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


def test_interval_half_width_is_a_share_and_ends_belong_to_it():
    interval = Interval(2.0, 1.9, 2.3)
    assert interval.half_width == pytest.approx(0.1)
    assert interval.contains(1.9)
    assert interval.contains(2.3)
    assert not interval.contains(1.89)
    assert Interval(-2.0, -2.3, -1.9).half_width == pytest.approx(0.1)


def test_median_interval_agrees_with_scipys_percentile_bootstrap():
    x = np.random.default_rng(3).gamma(2.0, size=101)
    ours = median_interval(x, seed=0, resamples=20_000)
    theirs = stats.bootstrap(
        (x,), np.median, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == np.median(x)
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_median_interval_resamples_every_sample_with_the_exact_probability():
    # Of three samples the bootstrap median is the lowest with probability
    # P(at least two of three draws are it) = 3 (1/3)^2 (2/3) + (1/3)^3 = 7/27 = 25.9 %.
    x = [1.0, 2.0, 3.0]
    lows = [median_interval(x, seed=seed, resamples=1).low for seed in range(3000)]
    share = np.mean(np.asarray(lows) == 1.0)
    assert share == pytest.approx(7 / 27, abs=4 * math.sqrt(7 / 27 * 20 / 27 / 3000))


def test_median_interval_is_the_same_however_it_is_chunked(monkeypatch):
    x = np.random.default_rng(0).normal(size=50)
    whole = median_interval(x, seed=5)
    monkeypatch.setattr("netzip_mlflow.statistics._CHUNK", 50 * 7)
    assert median_interval(x, seed=5) == whole


def test_median_interval_depends_on_seed_and_resamples():
    x = np.random.default_rng(0).normal(size=50)
    assert median_interval(x, seed=1) == median_interval(x, seed=1)
    assert median_interval(x, seed=1) != median_interval(x, seed=2)
    assert median_interval(x, seed=1, resamples=50) != median_interval(x, seed=1)


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf], [[1.0]]])
def test_median_interval_refuses_what_is_no_row_of_figures(samples):
    with pytest.raises(ValueError, match="finite"):
        median_interval(samples, seed=0)


def test_ratio_is_the_median_of_per_round_ratios_not_the_quotient_of_medians():
    baseline, candidate = [1.0, 2.0, 9.0], [1.0, 4.0, 3.0]
    assert bootstrap_median_ratio(baseline, candidate, seed=0).value == 1.0
    assert np.median(baseline) / np.median(candidate) != 1.0


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=40), st.floats(0.1, 10))
def test_a_constant_factor_gives_an_exact_ratio(times, factor):
    interval = bootstrap_median_ratio(np.asarray(times) * factor, times, seed=0, resamples=50)
    for figure in (interval.value, interval.low, interval.high):
        assert figure == pytest.approx(factor)


@pytest.mark.parametrize(("o", "c"), [([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_ratio_refuses_times_that_are_no_times(o, c):
    with pytest.raises(ValueError, match="above 0"):
        bootstrap_median_ratio(o, c, seed=0)


def test_drop_agrees_with_scipys_paired_bootstrap_over_samples():
    rng = np.random.default_rng(0)
    o = rng.random(400) < 0.9
    c = np.where(rng.random(400) < 0.08, ~o, o)
    ours = bootstrap_drop(o, c, seed=0, resamples=20_000)

    def drop(x, y, axis):
        return 100 * (x.mean(axis=axis) - y.mean(axis=axis))

    theirs = stats.bootstrap(
        (o.astype(float), c.astype(float)),
        drop,
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours.value == pytest.approx(100 * (o.mean() - c.mean()))
    assert ours.low == pytest.approx(theirs.low, abs=0.26)  # one sample is 0.25 points
    assert ours.high == pytest.approx(theirs.high, abs=0.26)


@given(answers)
def test_drop_identity_and_antisymmetry(pairs):
    o, c = np.array(pairs).T
    same = bootstrap_drop(o, o, seed=0, resamples=20)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    there, back = (bootstrap_drop(x, y, seed=0, resamples=200) for x, y in ((o, c), (c, o)))
    assert there.value == -back.value
    assert -100 <= there.low <= there.high <= 100


@given(answers)
def test_mcnemar_agrees_with_scipys_exact_binomial_test(pairs):
    o, c = np.array(pairs).T
    lost, won = int((o & ~c).sum()), int((~o & c).sum())
    expected = stats.binomtest(lost, lost + won, 0.5).pvalue if lost + won else 1.0
    assert mcnemar(o, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(c, o) == mcnemar(o, c)


def test_mcnemar_is_exact_for_many_pairs():
    o = np.repeat([True, False, True], [2100, 1900, 5000])
    c = np.repeat([False, True, True], [2100, 1900, 5000])
    expected = stats.binomtest(1900, 4000, 0.5).pvalue
    assert mcnemar(o, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(np.ones(2000), np.zeros(2000)) == 0.0  # 2**-1999 is below the least float
    assert mcnemar(np.ones(60), np.zeros(60)) == float(Fraction(1, 2**59))


def test_mcnemar_of_equal_answers_is_one():
    assert mcnemar([True, False], [True, False]) == 1.0


@pytest.mark.parametrize("function", [mcnemar, lambda o, c: bootstrap_drop(o, c, seed=0)])
@pytest.mark.parametrize(("o", "c"), [([True], [True, False]), ([], []), ([[True]], [[True]])])
def test_paired_figures_refuse_what_is_not_paired(function, o, c):
    with pytest.raises(ValueError, match="pairs"):
        function(o, c)


def test_examples_hold():
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
