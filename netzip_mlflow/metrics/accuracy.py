"""Accuracy of a classifier from its scores.

Scores are what the deployable puts out: logits, or probabilities when the file ends in a
softmax. The answer is the class of the highest score, the first one in a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.metrics.metric import Metric, percent

__all__ = ["METRICS", "classification", "per_class", "probabilities"]

BINS = 15  # of the calibration error, as in Guo et al. 2017

METRICS = (
    Metric("accuracy/top1", "Top-1 accuracy", "fraction right, the deployable on test", "more",
           "%", 0.01, percent, header="Top-1", column="top1"),
    Metric("accuracy/top5", "Top-5 accuracy", "fraction with the label among the five highest",
           "more", "%", 0.01, percent),
    Metric("accuracy/precision_macro", "Macro precision", "mean over classes of precision", "more",
           "%", 0.01, percent),
    Metric("accuracy/recall_macro", "Macro recall", "mean over classes of recall", "more",
           "%", 0.01, percent),
    Metric("accuracy/f1_macro", "Macro F1", "mean over classes of F1", "more",
           "%", 0.01, percent),
    Metric("accuracy/ece", "Expected calibration error",
           "expected calibration error, 15 bins (Guo et al. 2017)", "less"),
)  # fmt: skip


def classification(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Figures of one model on one split; keys without their prefix.

    Args:
        scores: float (n, K).
        labels: integers (n,) in [0, K).

    Returns:
        Fractions: `top1`, `top5` (absent with 5 classes or fewer), `precision_macro`,
        `recall_macro`, `f1_macro` (plain means over the classes that occur as a label or an
        answer; a class never answered has precision 0), `ece` (expected calibration error over
        15 equal-width bins of the top-1 confidence, Guo et al. 2017).

    Raises:
        NetzipError: when a score is not finite.
        ValueError: when scores and labels do not fit each other.

    >>> classification(np.eye(3), np.array([0, 1, 1]))["top1"]
    0.6666666666666666
    """
    labels = _validate(scores, labels)
    k = scores.shape[1]
    right = scores.argmax(1) == labels
    figures = {"top1": float(right.mean())}
    if k > 5:
        figures["top5"] = float((_rank(scores, labels) < 5).mean())
    counts = _Counts(scores, labels)
    seen = counts.labelled + counts.answered > 0
    figures["precision_macro"] = float(counts.precision[seen].mean())
    figures["recall_macro"] = float(counts.recall[seen].mean())
    figures["f1_macro"] = float(counts.f1[seen].mean())
    figures["ece"] = _calibration_error(probabilities(scores).max(1), right)
    return figures


def per_class(
    scores: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    baseline: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """One row per class: `class`, `support` (samples), `precision`, `recall`, `f1` (fractions).

    Args:
        scores: float (n, K).
        labels: integers (n,).
        classes: K names.
        baseline: scores of the baseline on the same samples; adds `recall_change_points`,
            negative where the model finds fewer of the class (0 for a class without samples).

    Raises:
        NetzipError, ValueError: as `classification`.
    """
    labels = _validate(scores, labels)
    if len(classes) != scores.shape[1]:
        raise ValueError(f"{len(classes)} names of classes for {scores.shape[1]} scores")
    counts = _Counts(scores, labels)
    rows: list[dict[str, Any]] = [
        {
            "class": name,
            "support": int(counts.labelled[i]),
            "precision": float(counts.precision[i]),
            "recall": float(counts.recall[i]),
            "f1": float(counts.f1[i]),
        }
        for i, name in enumerate(classes)
    ]
    if baseline is not None:
        change = 100 * (counts.recall - _Counts(baseline, _validate(baseline, labels)).recall)
        for row, points in zip(rows, change, strict=True):
            row["recall_change_points"] = float(points)
    return rows


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Scores (n, K) as probabilities, float64: softmax of logits.

    Rows that are already shares of 1 (within 2 %, since int8 outputs are rounded) are only
    brought to the sum of 1: a second softmax would flatten them.
    """
    s = np.asarray(scores, np.float64)
    total = s.sum(1, keepdims=True)
    if (s >= 0).all() and (np.abs(total - 1) <= 0.02).all():
        return s / total
    e = np.exp(s - s.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


class _Counts:
    """Per class (K,): samples labelled, answered, both; and the fractions that follow."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        k = scores.shape[1]
        answers = scores.argmax(1)
        self.labelled = np.bincount(labels, minlength=k)
        self.answered = np.bincount(answers, minlength=k)
        right = np.bincount(labels[answers == labels], minlength=k)
        self.precision = _share(right, self.answered)
        self.recall = _share(right, self.labelled)
        self.f1 = _share(2 * right, self.labelled + self.answered)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _rank(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes stand before the label; in a tie the lower index stands first."""
    own = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)


def _calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean over samples of |accuracy - confidence| of the bin (low, high] they fall into."""
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _validate(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if scores.ndim != 2 or labels.shape != (len(scores),) or not len(scores):
        raise ValueError(f"scores (n, K) and labels (n,), got {scores.shape} and {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        given = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"labels go from {given}; allowed: 0 to {scores.shape[1] - 1}")
    broken = ~np.isfinite(scores).all(1)
    if broken.any():
        count, first = int(broken.sum()), int(broken.argmax())
        raise NetzipError(
            f"the model puts out NaN or infinity on {count} of {len(scores)} samples "
            f"(the first is sample {first}): it is numerically broken and cannot be judged"
        )
    return labels
