from __future__ import annotations

import doctest
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as reference

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics import accuracy as module
from netzip_mlflow.metrics.accuracy import classification, per_class, probabilities


@pytest.fixture(scope="module")
def scored():
    """Logits of a model that is right two times in three, with classes of unequal sizes."""
    rng = np.random.default_rng(0)
    labels = rng.choice(8, size=600, p=np.arange(1, 9) / 36)
    scores = rng.normal(size=(600, 8)).astype(np.float32)
    scores[np.arange(600), labels] += 2.0
    return scores, labels


def test_figures_agree_with_scikit_learn(scored):
    scores, labels = scored
    answers = scores.argmax(1)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        labels, answers, average="macro", zero_division=0
    )
    assert classification(scores, labels) == pytest.approx(
        {
            "top1": reference.accuracy_score(labels, answers),
            "top5": reference.top_k_accuracy_score(labels, scores, k=5, labels=range(8)),
            "precision_macro": precision,
            "recall_macro": recall,
            "f1_macro": f1,
            "ece": classification(scores, labels)["ece"],
        }
    )


def test_calibration_error_agrees_with_torchmetrics(scored):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics warns about packages of its own
        from torchmetrics.functional.classification import multiclass_calibration_error

    scores, labels = scored
    expected = multiclass_calibration_error(
        torch.from_numpy(softmax(scores, axis=1)),
        torch.from_numpy(labels),
        num_classes=8,
        n_bins=15,
        norm="l1",
    )
    assert classification(scores, labels)["ece"] == pytest.approx(expected.item(), abs=1e-6)


def test_calibration_error_by_hand():
    # Four samples of confidence 0.8, three right: |0.75 - 0.8|; one of 0.6, wrong: 0.6.
    p = np.array([[0.8, 0.2]] * 4 + [[0.6, 0.4]])
    labels = np.array([0, 0, 0, 1, 1])
    ece = classification(p, labels)["ece"]
    assert ece == pytest.approx(4 / 5 * 0.05 + 1 / 5 * 0.6)


def test_a_class_that_is_never_answered_counts_as_zero_and_an_absent_one_does_not():
    scores = np.eye(4)[[0, 0, 1, 1]]  # class 2 is labelled, never answered; 3 is neither
    labels = np.array([0, 2, 1, 1])
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        labels, scores.argmax(1), average="macro", zero_division=0
    )
    figures = classification(scores, labels)
    assert figures["precision_macro"] == pytest.approx(precision)
    assert figures["recall_macro"] == pytest.approx(recall)
    assert figures["f1_macro"] == pytest.approx(f1)


@pytest.mark.parametrize(("k", "present"), [(5, False), (6, True)])
def test_top5_only_where_it_says_something(k, present):
    figures = classification(np.eye(k), np.arange(k))
    assert ("top5" in figures) is present


def test_ties_go_to_the_lower_class_in_top1_and_top5_alike():
    scores = np.zeros((7, 7))
    figures = classification(scores, np.arange(7))
    assert figures["top1"] == pytest.approx(1 / 7)
    assert figures["top5"] == pytest.approx(5 / 7)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 9))
def test_fractions_are_fractions_and_a_shift_of_logits_changes_nothing(seed, n, k):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(n, k)) * 5 - 3, rng.integers(0, k, n)
    figures = classification(scores, labels)
    assert all(0 <= figure <= 1 for figure in figures.values())
    assert classification(scores + 7, labels) == pytest.approx(figures)


def test_probabilities_are_not_squashed_twice(scored):
    p = softmax(scored[0].astype(np.float64), axis=1)
    np.testing.assert_allclose(probabilities(scored[0]), p, atol=1e-12)
    np.testing.assert_allclose(probabilities(p), p, atol=1e-12)
    rounded = np.round(p * 256) / 256  # what an int8 softmax puts out
    np.testing.assert_allclose(probabilities(rounded).sum(1), 1)
    assert np.abs(probabilities(rounded) - p).max() < 0.01
    huge = probabilities(np.array([[1e4, 0.0]], np.float32))
    np.testing.assert_array_equal(huge, [[1.0, 0.0]])


def test_per_class_agrees_with_scikit_learn_and_counts_the_change(scored):
    scores, labels = scored
    names = [f"class {i}" for i in range(8)]
    other = np.roll(scores, 1, axis=0)
    rows = per_class(scores, labels, names, baseline=other)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, scores.argmax(1), labels=range(8), zero_division=0
    )
    before = reference.recall_score(
        labels, other.argmax(1), labels=range(8), average=None, zero_division=0
    )
    assert [r["class"] for r in rows] == names
    for key, expected in (
        ("precision", precision),
        ("recall", recall),
        ("f1", f1),
        ("support", support),
        ("recall_change_points", 100 * (recall - before)),
    ):
        np.testing.assert_allclose([r[key] for r in rows], expected, atol=1e-12)
    assert "recall_change_points" not in per_class(scores, labels, names)[0]


def test_per_class_refuses_names_that_do_not_fit(scored):
    with pytest.raises(ValueError, match="2 names of classes for 8 scores"):
        per_class(*scored, classes=["a", "b"])


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_model_is_named_and_not_judged(scored, broken):
    scores, labels = scored
    scores = scores.copy()
    scores[[17, 40], 3] = broken
    with pytest.raises(NetzipError, match=r"2 of 600 samples \(the first is sample 17\)"):
        classification(scores, labels)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), r"\(3, 2\) and \(2,\)"),
        (np.zeros(3), np.zeros(3, int), r"scores \(n, K\)"),
        (np.zeros((0, 2)), np.zeros(0, int), r"\(0, 2\)"),
        (np.zeros((2, 2)), np.array([0, 2]), "labels go from 0 to 2; allowed: 0 to 1"),
        (np.zeros((2, 2)), np.array([-1, 0]), "labels go from -1"),
        (np.zeros((2, 2)), np.zeros(2), "labels must be integers, got float64"),
    ],
)
def test_what_does_not_fit_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        classification(scores, labels)


def test_examples_hold():
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
