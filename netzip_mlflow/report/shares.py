"""How much each parameter mattered for being among the best: a bar each."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from netzip_mlflow.report.dimension import shorten
from netzip_mlflow.report.style import CANDIDATE_COLOUR, RC

__all__ = ["draw_shares"]


def draw_shares(shares: Mapping[str, float]) -> Figure:
    """Shares of 1 by parameter, the largest on top."""
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    at = np.arange(len(ranked))
    with mpl.rc_context(RC):
        figure = Figure(figsize=(6.4, 0.9 + 0.34 * len(ranked)), layout="constrained")
        axes = figure.subplots()
        axes.barh(at, [share for _, share in ranked], height=0.66, color=CANDIDATE_COLOUR)
        for place, (_, share) in zip(at, ranked, strict=True):
            text = f"{share:.2f}" if share >= 0.005 else "< 0.01"
            axes.annotate(
                text, (share, place), xytext=(4, 0), textcoords="offset points", va="center",
                fontsize=8,
            )  # fmt: skip
        axes.set_yticks(at, [shorten(name, 36) for name, _ in ranked], fontsize=8)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, max(share for _, share in ranked) * 1.13)
        axes.set(
            title="What mattered for being among the best",
            xlabel="Share of the importance (PED-ANOVA)",
        )
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
    return figure
