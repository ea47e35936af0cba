"""What accuracy hides: how much a candidate's answers differ from the baseline's.

After Schwaiger et al., SafeAI 2022. Identity: agreement 1, everything else 0.
"""

from __future__ import annotations

import numpy as np

from netzip_mlflow.metrics.accuracy import per_class, probabilities
from netzip_mlflow.metrics.metric import Metric, percent, points

__all__ = ["METRICS", "fidelity"]

METRICS = (
    Metric("fidelity/agreement", "Agreement with the baseline",
           "fraction of samples with the baseline's answer; 1 = same", "more", "%", 0.01, percent),
    Metric("fidelity/positive_flips", "Wrong to right",
           "fraction wrong in the baseline and right now", "", "%", 0.01, percent),
    Metric("fidelity/negative_flips", "Right to wrong",
           "fraction right in the baseline and wrong now", "less", "%", 0.01, percent),
    Metric("fidelity/js_divergence", "Divergence of outputs",
           "mean Jensen-Shannon divergence of the outputs, nats; 0 = same", "less", "nats"),
    Metric("fidelity/confidence_change", "Change of confidence",
           "mean absolute change of the top-1 confidence", "less"),
    Metric("fidelity/confidence_change_disagreeing", "Change of confidence, other answer",
           "the same over samples with another answer", "less"),
    Metric("fidelity/worst_class_drop_points", "Worst class's recall, drop",
           "largest fall of one class's recall, points", "less", "points", 1.0, points),
)  # fmt: skip


def fidelity(scores_o: np.ndarray, scores_c: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compare a candidate's scores with the baseline's on the same samples.

    Args:
        scores_o, scores_c: float (n, K), baseline and candidate.
        labels: integers (n,).

    Returns:
        `agreement`: fraction of samples with the same top-1 answer.
        `positive_flips`, `negative_flips`: fractions that went from wrong to right, right to wrong.
        `js_divergence`: mean Jensen-Shannon divergence of the probabilities, in nats (at most
        ln 2).
        `confidence_change`: mean absolute difference of the two top-1 confidences;
        `confidence_change_disagreeing`: the same over samples where the answers differ, absent
        when there are none.
        `worst_class_drop_points`: the largest fall of a class's recall, in points; negative only
        when every class gained.

    Raises:
        NetzipError: when a score is not finite.
        ValueError: when the arrays do not fit each other.
    """
    if scores_o.shape != scores_c.shape:
        raise ValueError(f"scores differ in shape: {scores_o.shape} and {scores_c.shape}")
    names = [str(i) for i in range(scores_o.shape[1])]
    rows = per_class(scores_c, labels, names, baseline=scores_o)
    answers_o, answers_c = scores_o.argmax(1), scores_c.argmax(1)
    right_o, right_c = answers_o == labels, answers_c == labels
    differ = answers_o != answers_c
    p, q = probabilities(scores_o), probabilities(scores_c)
    change = np.abs(p.max(1) - q.max(1))
    falls = [-r["recall_change_points"] for r in rows if r["support"]]
    figures = {
        "agreement": float((~differ).mean()),
        "positive_flips": float((~right_o & right_c).mean()),
        "negative_flips": float((right_o & ~right_c).mean()),
        "js_divergence": float(_js_divergence(p, q).mean()),
        "confidence_change": float(change.mean()),
        "worst_class_drop_points": max(falls) + 0.0,  # + 0.0: never -0.0
    }
    if differ.any():
        figures["confidence_change_disagreeing"] = float(change[differ].mean())
    return figures


def _js_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(KL(p | m) + KL(q | m)) / 2 with m the mean of both, per row, in nats."""
    m = (p + q) / 2
    divergence = (_relative_entropy(p, m) + _relative_entropy(q, m)) / 2
    return np.maximum(divergence, 0.0)  # rounding leaves -1e-17 where the two are equal


def _relative_entropy(p: np.ndarray, m: np.ndarray) -> np.ndarray:
    ratio = np.divide(p, m, out=np.ones_like(p), where=p > 0)
    return (p * np.log(ratio)).sum(1)
