"""The rules by which a recipe cuts a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow.data import splits
from netzip_mlflow.data.source import Part, Source
from netzip_mlflow.data.splits import Cut, calibrate
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import DataSpec, SplitRule

CLASSES = ("cat", "dog", "owl")


def _part(n: int, groups: np.ndarray | None = None) -> Part:
    return Part(np.zeros((n, 1, 1, 1), dtype=np.uint8), np.arange(n) % 3, groups)


def _source(**sizes: int) -> Source:
    return Source("mine", CLASSES, {name: _part(n) for name, n in sizes.items()})


def cut(source: Source, spec: DataSpec, seed: int) -> dict[str, Cut]:
    """Stratified by class."""
    strata = {name: np.asarray(part.targets) for name, part in source.parts.items()}
    return splits.cut(source, spec, seed, strata)


def _spec(**keys: Any) -> DataSpec:
    rules: dict[str, Any] = {
        key: SplitRule(**given) if isinstance(given, dict) else given for key, given in keys.items()
    }
    return DataSpec(factory="a:b", **rules)


def test_bare_fractions_are_of_the_whole_train_part() -> None:
    cuts = cut(_source(train=300), _spec(validation=0.2, test=0.1), 0)
    assert {k: (c.part, len(c.indices)) for k, c in cuts.items()} == {
        "train": ("train", 210),
        "validation": ("train", 60),
        "test": ("train", 30),
    }


def test_fractions_and_counts_are_stratified() -> None:
    cuts = cut(_source(train=300), _spec(validation=30, test=0.1), 0)
    for split in ("validation", "test"):
        assert np.bincount(cuts[split].indices % 3).tolist() == [10, 10, 10]


@given(
    n=st.integers(20, 90),
    validation=st.one_of(st.floats(0.05, 0.4), st.integers(1, 8)),
    test=st.one_of(st.floats(0.05, 0.4), st.integers(1, 8)),
    seed=st.integers(0, 2**31 - 1),
)
def test_no_sample_is_in_two_splits_and_none_is_lost(n, validation, test, seed) -> None:
    cuts = cut(_source(train=n), _spec(validation=validation, test=test), seed)
    held = np.concatenate([c.indices for c in cuts.values()])
    assert sorted(held) == list(range(n))


def test_the_shipped_test_part_is_the_default() -> None:
    cuts = cut(_source(train=30, test=9), _spec(validation=6), 0)
    assert cuts["test"].part == "test"
    assert cuts["test"].indices.tolist() == list(range(9))


def test_validation_out_of_test_leaves_the_rest_as_test() -> None:
    cuts = cut(_source(train=30, test=10), _spec(validation={"first": 4, "of": "test"}), 0)
    assert (cuts["validation"].part, cuts["validation"].indices.tolist()) == ("test", [0, 1, 2, 3])
    assert cuts["test"].indices.tolist() == [4, 5, 6, 7, 8, 9]
    assert cuts["train"].indices.tolist() == list(range(30))


def test_two_first_rules_take_validation_then_test() -> None:
    rules = {"validation": {"first": 2, "of": "test"}, "test": {"first": 3, "of": "test"}}
    cuts = cut(_source(train=30, test=9), _spec(**rules), 0)
    assert cuts["validation"].indices.tolist() == [0, 1]
    assert cuts["test"].indices.tolist() == [2, 3, 4]


def test_first_goes_before_a_drawn_share_of_the_same_part() -> None:
    rules = {"validation": {"first": 5, "of": "test"}, "test": {"count": 6, "of": "test"}}
    cuts = cut(_source(train=30, test=12), _spec(**rules), 3)
    assert cuts["validation"].indices.tolist() == [0, 1, 2, 3, 4]
    assert cuts["test"].indices.min() >= 5


def test_the_test_split_does_not_depend_on_validation() -> None:
    small = cut(_source(train=300), _spec(validation=0.1, test=0.2), 7)
    large = cut(_source(train=300), _spec(validation=0.4, test=0.2), 7)
    np.testing.assert_array_equal(small["test"].indices, large["test"].indices)


def test_a_shipped_validation_part_is_used_where_a_rule_names_it() -> None:
    source = _source(train=30, validation=9, test=9)
    asked = cut(source, _spec(validation={"first": 9, "of": "validation"}), 0)
    assert asked["validation"].part == "validation"
    assert len(asked["train"].indices) == 30
    assert cut(source, _spec(validation=6), 0)["validation"].part == "train"


def test_the_seed_changes_the_cut_and_nothing_else_does() -> None:
    spec = _spec(validation=0.2, test=0.2)
    one, same, other = (cut(_source(train=300), spec, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one["validation"].indices, same["validation"].indices)
    assert not np.array_equal(one["validation"].indices, other["validation"].indices)
    assert not np.array_equal(one["test"].indices, other["test"].indices)


@pytest.mark.parametrize(
    ("sizes", "keys", "message"),
    [
        ({"train": 30}, {}, "data.test: is missing, and mine ships no test part"),
        ({"test": 30}, {"validation": 2}, "mine has no part 'train'"),
        (
            {"train": 30, "test": 9},
            {"validation": {"first": 3, "of": "tset"}},
            "data.validation.of: no part 'tset'.*did you mean 'test'",
        ),
        ({"train": 30, "test": 9}, {"validation": 31}, "data.validation: wants 31 .* 30 left"),
        ({"train": 30}, {"validation": 20, "test": 20}, "data.validation: wants 20 .* 10 left"),
        ({"train": 30, "test": 9}, {"validation": 30}, "train is empty"),
        (
            {"train": 30, "test": 9},
            {"validation": {"first": 9, "of": "test"}},
            "test is empty",
        ),
    ],
)
def test_a_cut_that_cannot_be_is_refused(sizes, keys, message) -> None:
    with pytest.raises(InputError, match=message):
        cut(_source(**sizes), _spec(**keys), 0)


def _tracked(n: int, length: int) -> Source:
    groups = np.arange(n) // length
    labels = groups % 3
    images = np.zeros((n, 1, 1, 1), dtype=np.uint8)
    return Source("tracks", CLASSES, {"train": Part(images, labels, groups)})


def test_groups_stay_together() -> None:
    source = _tracked(600, 10)
    cuts = cut(source, _spec(validation=0.2, test=0.2), 0)
    groups = source.parts["train"].groups
    assert groups is not None
    held = [set(groups[c.indices]) for c in cuts.values()]
    assert sum(len(h) for h in held) == len(set.union(*held)) == 60
    assert len(cuts["validation"].indices) == len(cuts["test"].indices) == 120


def test_first_may_not_cut_a_group() -> None:
    source = _tracked(600, 10)
    fine = cut(source, _spec(validation={"first": 30}, test=0.2), 0)
    assert len(fine["validation"].indices) == 30
    with pytest.raises(InputError, match="first 35 samples cut group 3 in two"):
        cut(source, _spec(validation={"first": 35}, test=0.2), 0)


def test_groups_that_are_too_large_are_said_to_be() -> None:
    with pytest.raises(InputError, match="no group of part 'train' is small enough"):
        cut(_tracked(90, 30), _spec(validation=6, test=0.3), 0)


def test_calibration_is_a_stratified_part_whose_beginning_is_mixed() -> None:
    labels = np.repeat([0, 1, 2], 100)
    chosen = calibrate(labels, 60, 0)
    assert np.bincount(labels[chosen]).tolist() == [20, 20, 20]
    assert len(set(labels[chosen][:15])) == 3
    np.testing.assert_array_equal(chosen, calibrate(labels, 60, 0))
    assert not np.array_equal(chosen, calibrate(labels, 60, 1))
    assert len(calibrate(labels, 0.1, 0)) == 30


def test_calibration_may_not_exceed_train() -> None:
    with pytest.raises(InputError, match=r"data.calibration: 256 of 30 samples; allowed: 1 to 30"):
        calibrate(np.arange(30) % 3, 256, 0)
