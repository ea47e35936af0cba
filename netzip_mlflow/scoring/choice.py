"""The choice of the best candidate: on validation figures, within every limit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from netzip_mlflow.scoring.constraints import Constraints
from netzip_mlflow.scoring.ratios import Metrics

__all__ = ["Choice", "best"]

FEASIBLE, OCS, VIOLATION = (f"validation/score/{key}" for key in ("feasible", "ocs", "violation"))
DROP = "validation/accuracy/drop_points"


@dataclass(frozen=True)
class Choice:
    """`best` is None when nothing is feasible; then `least_violating` is named instead.

    Both are None when nothing was measured. `reason` says in words why.
    """

    best: str | None
    least_violating: str | None
    reason: str

    @property
    def feasible(self) -> bool:
        return self.best is not None

    @property
    def named(self) -> str | None:
        """The candidate to look at: the best, or the one that violates least."""
        return self.best or self.least_violating


def best(
    candidates: Mapping[str, Metrics],
    limits: Constraints | None = None,
    baseline: Metrics | None = None,
) -> Choice:
    """Pick by ``validation/score/ocs`` among the feasible; else the smallest sum of violations.

    No test figure is read. The baseline must not be among the candidates; one without
    ``validation/score/feasible`` (it failed) is passed over. Equal scores: the smaller drop, then
    the earlier one.

    Args:
        candidates: graded figures by name.
        limits: what they were graded by, to name those that are broken; None: each by its own.
        baseline: its figures, with `limits`.
    """
    drop = f"{DROP}_high" if limits is not None and limits.strict else DROP
    judged = {n: m for n, m in candidates.items() if FEASIBLE in m}
    feasible = [n for n, m in judged.items() if m[FEASIBLE] > 0]
    if feasible:
        name = min(feasible, key=lambda n: (-judged[n][OCS], judged[n][drop]))
        among = f"highest OCS on validation ({judged[name][OCS]:.3f}) of {len(feasible)} feasible"
        return Choice(name, None, f"{among}, {len(judged)} measured")
    if judged:
        name = min(judged, key=lambda n: (judged[n].get(VIOLATION, math.inf), judged[n][drop]))
        over = limits.violations(baseline or {}, judged[name]) if limits is not None else {}
        broken = ", ".join(
            f"{limit} by {excess:.2f}" for limit, excess in over.items() if excess > 0
        )
        reason = (
            f"none of {len(judged)} measured keeps every limit on validation; {name} violates "
            f"least (drop {judged[name][drop]:.2f} points{broken and f'; {broken} of the limit'})"
        )
        return Choice(None, name, reason)
    return Choice(None, None, "no candidate was measured")
