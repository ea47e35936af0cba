"""Images that are in two splits."""

from __future__ import annotations

import numpy as np
import pytest

from netzip_mlflow.data.overlaps import separate
from netzip_mlflow.data.splits import Cut
from netzip_mlflow.errors import InputError


def _digests(text: str) -> np.ndarray:
    return np.array(list(text), dtype="S32")


def _cuts() -> dict[str, Cut]:
    return {
        "train": Cut("train", np.array([0, 1, 2, 3])),
        "validation": Cut("train", np.array([4, 5, 6])),
        "test": Cut("test", np.array([0, 1, 2])),
    }


def test_distinct_images_pass_unchanged() -> None:
    digests = {"train": _digests("abcdefg"), "test": _digests("xyz")}
    for policy in ("error", "drop"):
        kept = separate(_cuts(), digests, policy)
        assert {k: c.indices.tolist() for k, c in kept.items()} == {
            k: c.indices.tolist() for k, c in _cuts().items()
        }


def test_doubles_within_one_split_are_no_overlap() -> None:
    digests = {"train": _digests("aabbefg"), "test": _digests("xxx")}
    assert len(separate(_cuts(), digests, "error")["train"].indices) == 4


def test_an_overlap_names_the_pair_how_many_an_example_and_the_remedy() -> None:
    digests = {"train": _digests("abxxefg"), "test": _digests("xyz")}
    with pytest.raises(InputError) as caught:
        separate(_cuts(), digests, "error")
    (problem,) = caught.value.problems
    assert problem.what == (
        "train and test overlap: 2 images of train are in test too; "
        "sample 2 of part 'train' is sample 0 of part 'test'"
    )
    assert "`data.duplicates: drop`" in problem.hint


def test_every_pair_is_reported() -> None:
    digests = {"train": _digests("axcdaxg"), "test": _digests("xyz")}
    with pytest.raises(InputError) as caught:
        separate(_cuts(), digests, "error")
    pairs = [problem.what.partition(" overlap")[0] for problem in caught.value.problems]
    assert pairs == ["validation and test", "train and test", "train and validation"]


def test_drop_takes_from_train_then_validation_and_leaves_test() -> None:
    digests = {"train": _digests("axcdayg"), "test": _digests("xyz")}
    kept = separate(_cuts(), digests, "drop")
    assert kept["train"].indices.tolist() == [2, 3]
    assert kept["validation"].indices.tolist() == [4, 6]
    assert kept["test"].indices.tolist() == [0, 1, 2]
