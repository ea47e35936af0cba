"""Every picture of a search, by the name of its file, and why one is missing.

Optuna's own figures of the same names set a style for the whole process, show no skipped trial, and
print the names of categories over each other: these are drawn as the other plots are.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from netzip_mlflow.report.front import draw_front, front
from netzip_mlflow.report.history import by_number, by_time, draw_history
from netzip_mlflow.report.parallel import draw_parallel, parallel
from netzip_mlflow.report.shares import draw_shares
from netzip_mlflow.report.slices import draw_slices, slices
from netzip_mlflow.report.trials import Trials, ordered

__all__ = ["figures", "missing"]

_MOST = {"parallel_coordinates": 8, "slice": 12, "importances": 20}


def figures(trials: Trials, shares: Mapping[str, float], limit: float) -> dict[str, Figure]:
    """The pictures that there is something to show in.

    Args:
        shares: the importance of each parameter, empty where it is not known.
        limit: the drop that may be, in points.
    """
    if not trials.judged:
        return {}
    found = {
        "history": draw_history(by_number(trials)),
        "history_time": draw_history(by_time(trials)),
    }
    if shares:
        few = sorted(shares, key=lambda n: -shares[n])[: _MOST["importances"]]
        found["importances"] = draw_shares({name: shares[name] for name in few})
    if names := _chosen(trials, shares, "parallel_coordinates"):
        found["parallel_coordinates"] = draw_parallel(parallel(trials, names))
    if names := _chosen(trials, shares, "slice"):
        found["slice"] = draw_slices(slices(trials, names))
    for ratio, name in (("C", "pareto_compression"), ("S", "pareto_speed")):
        data = front(trials, ratio, limit)
        if data.numbers:
            found[name] = draw_front(data)
    return found


def missing(trials: Trials, shares: Mapping[str, float]) -> list[str]:
    """Sentences on what `figures` leaves out."""
    if not trials.judged:
        return ["No trial was judged to its end: there is nothing to plot."]
    said = []
    if not shares:
        counts = trials.counts
        told = sum(counts[o] for o in ("feasible", "infeasible", "same", "stopped"))
        said.append(
            "Parameter importances are left out: they need ten trials that were judged or stopped "
            f"early (here {told}), with figures that differ."
        )
    known = _known(trials)
    for name, most in _MOST.items():
        if name != "importances" and len(known) > most:
            which = "most important" if shares else "most frequent"
            said.append(f"`{name}` shows the {most} {which} of {len(known)} parameters.")
    return said


def _known(trials: Trials) -> list[str]:
    """What was varied and stands in a judged trial."""
    used = {name for trial in trials.judged for name in trial.parameters}
    return [name for name in ordered(trials.varied) if name in used]


def _chosen(trials: Trials, shares: Mapping[str, float], plot: str) -> list[str]:
    """As many as the picture has room for, by importance, else by how many trials have them."""
    known = _known(trials)
    often = {n: sum(n in t.parameters for t in trials.judged) for n in known}
    ranked = sorted(known, key=lambda n: (-shares.get(n, 0.0), -often[n]))[: _MOST[plot]]
    return [name for name in known if name in ranked]
