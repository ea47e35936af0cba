from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from sklearn.metrics import accuracy_score, recall_score

from netzip_mlflow.metrics.fidelity import fidelity


def pair(seed, n=300, k=6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    o = rng.normal(size=(n, k))
    o[np.arange(n), labels] += 2
    return o, o + rng.normal(size=(n, k)), labels


def test_identity():
    o, _, labels = pair(0)
    assert fidelity(o, o.copy(), labels) == {
        "agreement": 1.0,
        "positive_flips": 0.0,
        "negative_flips": 0.0,
        "js_divergence": 0.0,
        "confidence_change": 0.0,
        "worst_class_drop_points": 0.0,
    }


def test_figures_agree_with_scipy_and_scikit_learn():
    o, c, labels = pair(1)
    figures = fidelity(o, c, labels)
    p, q = softmax(o, axis=1), softmax(c, axis=1)
    answers_o, answers_c = o.argmax(1), c.argmax(1)
    falls = recall_score(labels, answers_o, average=None) - recall_score(
        labels, answers_c, average=None
    )
    assert figures["js_divergence"] == pytest.approx(np.mean(jensenshannon(p, q, axis=1) ** 2))
    assert figures["agreement"] == pytest.approx(accuracy_score(answers_o, answers_c))
    assert figures["worst_class_drop_points"] == pytest.approx(100 * falls.max())
    # Accuracy moves by what flips one way less what flips the other.
    assert accuracy_score(labels, answers_c) - accuracy_score(labels, answers_o) == pytest.approx(
        figures["positive_flips"] - figures["negative_flips"]
    )


def test_flips_and_confidence_by_hand():
    o = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]])
    c = np.array([[0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.8, 0.2]])
    figures = fidelity(o, c, np.array([0, 1, 0, 1]))
    assert figures["positive_flips"] == 0.25
    assert figures["negative_flips"] == 0.25
    assert figures["agreement"] == 0.5
    assert figures["confidence_change"] == pytest.approx((0.2 + 0.3 + 0.1 + 0.0) / 4)
    assert figures["confidence_change_disagreeing"] == pytest.approx((0.3 + 0.1) / 2)
    assert figures["worst_class_drop_points"] == pytest.approx(50)  # class 0: 2 of 2 -> 1 of 2


@given(st.integers(0, 2**32 - 1))
def test_divergence_is_symmetric_and_bounded(seed):
    o, c, labels = pair(seed, n=20, k=3)
    there, back = fidelity(o, 10 * c, labels), fidelity(10 * c, o, labels)
    assert there["js_divergence"] == pytest.approx(back["js_divergence"])
    assert 0 < there["js_divergence"] <= math.log(2)
    assert there["positive_flips"] == back["negative_flips"]


def test_opposite_certainties_diverge_by_ln_2():
    o, c = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert fidelity(o, c, np.array([0]))["js_divergence"] == pytest.approx(math.log(2))


def test_scores_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        fidelity(np.zeros((2, 3)), np.zeros((2, 4)), np.array([0, 1]))
