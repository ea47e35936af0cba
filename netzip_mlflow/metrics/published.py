"""Figures that published tables hold and that nothing here measures: `netzip score` reads them."""

from __future__ import annotations

from netzip_mlflow.metrics.metric import Metric, percent

__all__ = ["METRICS"]

METRICS = (
    Metric(
        "accuracy/map50_95", "mAP50-95", "mean average precision over IoU 0.5 to 0.95", "more",
        "%", 0.01, percent, header="mAP50-95", column="map50_95",
    ),
    Metric(
        "accuracy/map50", "mAP50", "mean average precision at IoU 0.5", "more",
        "%", 0.01, percent, header="mAP50", column="map50",
    ),
    Metric("energy/joules", "Energy of one inference", "energy of one inference", "less", "J",
           column="energy_j"),
    Metric("energy/watts", "Power", "power while it runs", "less", "W", column="power_w"),
)  # fmt: skip
