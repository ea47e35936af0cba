"""What scoring and every task's comparison say of a candidate beside its baseline."""

from __future__ import annotations

from netzip_mlflow.metrics.metric import Metric, points, probability, thousandths, times

__all__ = ["DROP", "METRICS"]

DROP = Metric(
    "accuracy/drop_points", "Drop of accuracy", "100 x (baseline - candidate), paired", "less",
    "points", 1.0, points, interval=True, header="Drop, pts",
)  # fmt: skip

METRICS = (
    DROP,
    Metric("accuracy/mcnemar_p", "McNemar's exact p",
           "McNemar's exact p: chance of such a difference if there were none", show=probability),
    Metric("ratio/P", "P, performance", "accuracy candidate / baseline; 1 = same", "more",
           show=thousandths, header="P"),
    Metric("ratio/S", "S, speed-up", "speed baseline / candidate on the basis (CHATS by default)",
           "more", show=times, header="S"),
    Metric("ratio/C", "C, compression", "size baseline / candidate on the basis (disk by default)",
           "more", show=times, header="C"),
    Metric("ratio/E", "E, efficiency", "energy baseline / candidate, where there is a meter",
           "more", show=times, header="E"),
    Metric("ratio/pcr", "Parameters, baseline / model", "parameters baseline / candidate", "more",
           show=times),
    Metric("ratio/its", "Latency ratio, baseline / model",
           "latency, median per-round baseline / candidate", "more", show=times, interval=True,
           header="Ratio"),
    Metric("ratio/esr", "Energy ratio, baseline / model", "energy baseline / candidate", "more",
           show=times),
    Metric("ratio/al", "Relative loss of accuracy", "relative loss of accuracy; 0 = same", "less"),
    Metric("ratio/zip", "Zipped size, baseline / model", "zipped size baseline / candidate", "more",
           show=times),
    Metric("score/ocs", "OCS", "P x (l1 (P-1) + l2 (S-1) + l3 (C-1) + l4 (E-1)); 0 = baseline",
           "more", show=times, header="OCS"),
    Metric("score/feasible", "Feasible", "1 within every limit that the command knows, else 0",
           "more"),
    Metric("score/violation", "Violation",
           "sum of excess / limit over the limits that are broken; 0 = feasible", "less"),
)  # fmt: skip
