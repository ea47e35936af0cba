"""A candidate's latency in words: what changed, and why it did not get faster."""

from __future__ import annotations

from netzip_mlflow.metrics.metric import times
from netzip_mlflow.metrics.row import Row
from netzip_mlflow.report.cells import interval
from netzip_mlflow.report.markup import listed

__all__ = ["explain"]

_SPARSE = 0.01


def explain(row: Row) -> list[str]:
    """Sentences on a row's latency; the first says whether it changed, the others why.

    Reads ``ratio/its`` with its interval, ``speed/layers`` and ``speed/int8_layers`` (what the
    runtime executes), ``casts``, ``dynamic_nodes`` (counts) and ``float_layers`` (names) of the
    optimised graph, ``size/sparsity`` and ``ratio/S``. Empty where no latency was compared.
    """
    ratio = row.metrics.get("ratio/its")
    if ratio is None or row.kind == "baseline":
        return []
    low, high = row.metrics.get("ratio/its_low"), row.metrics.get("ratio/its_high")
    shown = interval(row, "ratio/its", times)
    if low is None or high is None:
        return [f"Latency ratio {shown}; without an interval it is not judged."]
    if low > 1:
        return [f"Faster: latency ratio {shown}.", *_execution(row, faster=True)]
    if high < 1:
        slower = (
            f"Slower: it takes {times(1 / ratio)} times the baseline's latency (ratio {shown})."
        )
        return [slower, *_execution(row, faster=False)]
    return [f"No measurable change of latency: ratio {shown}.", *_execution(row, faster=False)]


def _execution(row: Row, *, faster: bool) -> list[str]:
    layers, int8 = (int(row.metrics.get(f"speed/{key}", 0)) for key in ("layers", "int8_layers"))
    said = []
    if layers and 0 < int8 < layers:
        said.append(f"The runtime executes {int8} of {layers} layers in int8{_names(row)}.")
    elif layers and int8 == layers:
        said.append(f"The runtime executes all {layers} layers in int8.")
    if faster:
        return said
    if layers and int8 == 0:
        said.append(f"The runtime executes none of the {layers} layers in int8, all in float.")
    dynamic = row.facts.get("dynamic_nodes", 0)
    if dynamic:
        said.append(
            f"{_many(dynamic, 'activation')} quantised anew at every call (dynamic quantisation), "
            "which costs time that the integer kernels must first win back."
        )
    casts = row.facts.get("casts", 0)
    if casts and not dynamic:  # beside dynamic quantisation, casts carry int32 sums back to float
        said.append(
            f"{_many(casts, 'cast')} inserted by the runtime: the numbers are stored in half "
            "precision, but computed in single precision."
        )
    sparsity, speedup = row.metrics.get("size/sparsity"), row.metrics.get("ratio/S")
    if sparsity is not None and sparsity > _SPARSE and speedup == 1:
        said.append(
            f"{100 * sparsity:.0f} % of the weights are zero, but a dense kernel multiplies zeros "
            "like any other number: operations and speed do not change."
        )
    return said


def _names(row: Row) -> str:
    names = row.facts.get("float_layers", [])
    return f"; in float: {listed(names)}" if names else ""


def _many(amount: int, noun: str) -> str:
    return f"{amount} {noun} is" if amount == 1 else f"{amount} {noun}s are"
