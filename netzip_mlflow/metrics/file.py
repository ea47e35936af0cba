"""What a file itself tells: sizes, operations, bit widths, what the runtime makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from netzip_mlflow.metrics.family import Conditions, Facts, Figures, Model, Need
from netzip_mlflow.metrics.metric import Metric, big, data, percent

__all__ = ["METRICS", "File"]

METRICS = (
    Metric("speed/macs", "MACs", "multiply-accumulates of one sample, off the graph", "less",
           "M", 1e6, big, column="macs_g", factor=1e9),
    Metric("speed/ops", "Operations", "operations of one sample, 2 x MACs", "less",
           "M", 1e6, big, column="ops_g", factor=1e9),
    Metric("speed/chats", "CHATS", "sum over layers of operations x bit width (paper, eq. 5)",
           "less", "G bit-operations", 1e9, big, column="chats_g", factor=1e9),
    Metric("speed/mean_bits", "Mean bit width", "CHATS / operations", "less"),
    Metric("speed/layers", "Layers executed", "layers that the runtime executes"),
    Metric("speed/int8_layers", "Layers in int8", "of these, in integer arithmetic", "more",
           header="Int8 layers"),
    Metric("size/disk_bytes", "Size on disk", "the file that ships", "less", "kB", 1e3, data,
           header="Disk", column="disk_mb", factor=1e6),
    Metric("size/zip_bytes", "Size zipped", "the same under deflate level 9", "less", "kB", 1e3,
           data, column="zip_mb", factor=1e6),
    Metric("size/parameters", "Parameters",
           "weights and biases in the graph, as the numbers they stand for", "less", "k", 1e3, big,
           column="params_m", factor=1e6),
    Metric("size/nonzero", "Non-zero parameters", "of these, not zero", "less", "k", 1e3, big,
           column="nonzero_m", factor=1e6),
    Metric("size/sparsity", "Sparsity", "1 - nonzero / parameters", "", "%", 0.01, percent),
)  # fmt: skip


UNTOLD = "the runtime does not say what it executes"
MOST_NAMES = 20  # of layers: a tag holds them


class File:
    """See `netzip_mlflow.metrics.family.Family`."""

    needs: Need = "file"
    metrics = METRICS

    def measure(self, models: Sequence[Model], _conditions: Conditions) -> list[Figures]:
        """Raises InputError where the file is corrupt, or holds a layer that cannot be counted."""
        return [_figures(model) for model in models]


def _figures(model: Model) -> Figures:
    from netzip_mlflow.metrics import operations, size
    from netzip_mlflow.metrics.graph import read_model

    path = model.path
    totals = operations.totals(operations.layers(read_model(path)))
    executed = model.runtime.executed(path)
    metrics = {f"speed/{key}": float(totals[key]) for key in ("macs", "ops", "chats", "mean_bits")}
    metrics |= {f"size/{key}": float(value) for key, value in size.sizes(path).items()}
    if executed is None:
        return Figures(metrics, absent=dict.fromkeys(("speed/layers", "speed/int8_layers"), UNTOLD))
    metrics["speed/layers"] = float(executed.layers)
    metrics["speed/int8_layers"] = float(executed.int8_layers)
    facts = Facts(
        casts=executed.casts,
        conversions=executed.conversions,
        dynamic_nodes=executed.dynamic_nodes,
    )
    if executed.int8_layers:  # where all are in float, their names say nothing
        facts["float_layers"] = list(executed.float_layers[:MOST_NAMES])
    return Figures(metrics, facts=facts)
