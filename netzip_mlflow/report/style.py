"""Colours and type of every picture: safe for colour-blind readers (Okabe and Ito 2008)."""

from __future__ import annotations

from typing import Any

__all__ = [
    "BASELINE_COLOUR",
    "BEST_COLOUR",
    "CANDIDATE_COLOUR",
    "GRID",
    "INFEASIBLE_COLOUR",
    "INK",
    "MUTED",
    "PAPER",
    "RC",
    "colour",
    "marker",
]

BASELINE_COLOUR = "#e69f00"
BEST_COLOUR = "#009e73"
CANDIDATE_COLOUR = "#0072b2"
INFEASIBLE_COLOUR = "#9aa5b1"
# the report swaps these four for its own theme's colours: nothing else may use them
INK = "#1b1f24"
MUTED = "#5b6570"
GRID = "#dde2e7"
PAPER = "#fffffe"

# Any: matplotlib's own type of keys is private
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a row of a table may be called "$x$"
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.6,
}


def colour(standing: str) -> str:
    """The colour of a model that is `baseline`, `best`, `feasible` or `infeasible`, and of a trial
    that is `same`, `skipped`, `stopped` or `failed`."""
    return {
        "baseline": BASELINE_COLOUR,
        "best": BEST_COLOUR,
        "feasible": CANDIDATE_COLOUR,
        "infeasible": INFEASIBLE_COLOUR,
        "same": "#f0e442",
        "skipped": "#56b4e9",
        "stopped": "#cc79a7",
        "failed": "#d55e00",
    }[standing]


def marker(standing: str) -> dict[str, Any]:
    """How its point is drawn: no two standings share a shape, whatever their colours."""
    shapes = {
        "baseline": "s", "best": "*", "infeasible": "X", "below": "v",
        "same": "D", "skipped": ">", "stopped": "p", "failed": "P",
    }  # fmt: skip
    shade = colour("infeasible" if standing == "below" else standing)
    edge = {"markeredgecolor": INK if standing == "same" else PAPER, "markeredgewidth": 0.8}
    size = 14 if standing == "best" else 7
    return {
        "marker": shapes.get(standing, "o"),
        "markersize": size,
        "color": shade,
        "linestyle": "none",
        **edge,
    }
