"""What commands log of their own work: training, applying a chain, searching."""

from __future__ import annotations

from netzip_mlflow.metrics.metric import Metric, big

__all__ = ["METRICS"]

_PARENT = "on a search's parent: "

METRICS = (
    Metric("speed/macs_thop", "MACs by thop",
           "MACs of the float network by thop (with BatchNorm and pooling)", "less", "M", 1e6, big),
    Metric("fidelity/export_max_abs_diff", "Export, largest difference",
           "largest difference of the float export from torch, on random images", "less"),
    Metric("compress/seconds", "Time to make it",
           "wall time of the chain's techniques; from the cache: that of their first run", "less",
           "s"),
    Metric("training/loss", "Training loss", "mean training loss of an epoch, by epoch", "less"),
    Metric("training/validation", "Validation while training",
           "accuracy of the float network on validation, by epoch: it chooses one", "more"),
    Metric("search/best_ocs", "Best OCS", f"{_PARENT}the best feasible OCS so far, by trial",
           "more"),
    Metric("search/ended", "Trials", f"{_PARENT}how many trials have ended, by trial"),
    Metric("search/feasible", "Feasible trials", "of these, judged and within the constraint"),
    Metric("search/infeasible", "Infeasible trials", "of these, judged and outside the constraint"),
    Metric("search/same", "Trials of one chain", "of these, chains that had been tried"),
    Metric("search/skipped", "Skipped trials", "of these, by the bound"),
    Metric("search/stopped", "Stopped trials", "of these, early, out of the constraint's reach"),
    Metric("search/failed", "Failed trials", "of these, with an error"),
    Metric("search/seconds", "Time at work",
           f"{_PARENT}wall time in which a trial was at work, s", "", "s"),
)  # fmt: skip
