"""The choice of the best candidate: on validation figures, within the constraint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netzip_mlflow.scoring.ratios import Metrics
from netzip_mlflow.scoring.verdict import violation

__all__ = ["Choice", "best"]


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
    candidates: Mapping[str, Metrics], *, max_drop_points: float, strict: bool = False
) -> Choice:
    """Pick by ``validation/score/ocs`` among the feasible; else the smallest violation.

    No test figure is read. The baseline must not be among the candidates; one without
    ``validation/score/feasible`` (it failed) is passed over. Equal scores: the smaller drop, then
    the earlier one.

    Args:
        candidates: validation metrics by name.
        max_drop_points: the constraint, for the size of a violation.
        strict: the constraint holds for the upper end of the drop's interval.
    """
    key = "validation/accuracy/drop_points" + ("_high" if strict else "")
    judged = {n: m for n, m in candidates.items() if "validation/score/feasible" in m}
    feasible = [n for n, m in judged.items() if m["validation/score/feasible"] > 0]
    if feasible:
        name = min(feasible, key=lambda n: (-judged[n]["validation/score/ocs"], judged[n][key]))
        ocs = judged[name]["validation/score/ocs"]
        among = f"highest OCS on validation ({ocs:.3f}) of {len(feasible)} feasible"
        return Choice(name, None, f"{among}, {len(judged)} measured")
    if judged:
        name = min(judged, key=lambda n: judged[n][key])
        drop = judged[name][key]
        excess = violation(drop, max_drop_points)
        reason = (
            f"none of {len(judged)} measured keeps the limit of {max_drop_points:g} points on "
            f"validation; {name} violates it least (drop {drop:.2f} points, violation {excess:.2f})"
        )
        return Choice(None, name, reason)
    return Choice(None, None, "no candidate was measured")
