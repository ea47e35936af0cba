"""What is uncertain about a choice, in sentences."""

from __future__ import annotations

from collections.abc import Iterable

from netzip_mlflow.metrics.metric import times
from netzip_mlflow.metrics.row import Row
from netzip_mlflow.metrics.scores import DROP
from netzip_mlflow.report.cells import interval
from netzip_mlflow.report.markup import listed
from netzip_mlflow.report.ranking import Standing, accuracy_key
from netzip_mlflow.scoring import Choice

__all__ = ["doubts", "order"]

MOST = 20  # of different flags


def doubts(
    parts: Standing, named: Row | None, best: Choice, terms: str, noisy: Iterable[str]
) -> list[str]:
    """Sentences on noise, intervals, the order of the first two, what was not measured.

    Args:
        parts: the arranged frame.
        named: the row of the best (or least violating) candidate, None when there is none.
        best: the choice.
        terms: which terms took part in OCS.
        noisy: why the timing is flagged.
    """
    reasons = list(noisy)
    said = [f"Timing is flagged noisy: {reason}." for reason in reasons]
    if named is not None:
        said += _intervals(named)
    if best.best:
        said += _runner_up(parts, best)
    timed = [row.name for row in parts.candidates if _contains_one(row)]
    if timed:
        said.append(f"No measurable change of latency: {listed(timed)}.")
    if "E" not in terms.split(","):
        said.append("Energy was not measured: the E term is left out of every score.")
    told = {"noisy"} if reasons else set()  # of all models, above
    flagged: dict[str, list[str]] = {}
    for row in parts.measured:
        for flag in row.flags:
            if flag not in told:
                flagged.setdefault(flag, []).append(row.name)
    said += [f"{listed(names)}: {flag}." for flag, names in flagged.items()][:MOST]
    said.append(
        "Intervals cover the choice of samples and rounds only: another training seed, or another "
        "machine, can move the figures further."
    )
    return said


def _intervals(row: Row) -> list[str]:
    low, high = (row.metrics.get(key) for key in DROP.interval_keys)
    said = []
    if low is not None and high is not None:
        if low <= 0 <= high:
            said.append(
                f"{row.name}: the drop's interval, {interval(row, 'accuracy/drop_points')} "
                "points, contains 0."
            )
        else:
            said.append(
                f"{row.name}: with the test samples drawn anew, the drop would lie between "
                f"{low:.2f} and {high:.2f} points (95 %)."
            )
    return said


def _runner_up(parts: Standing, best: Choice) -> list[str]:
    rows = parts.feasible
    if len(rows) < 2 or rows[0].name != best.best:
        return []
    told = order(rows[0], rows[1])
    return [told] if told else []


def order(first: Row, second: Row) -> str:
    """Whether the order of two could be noise of the validation accuracy; empty without OCS.

    OCS moves with P nearly in proportion: dOCS = OCS/P dP, with dP from the drop's interval.
    """
    key = "validation/score/ocs"
    a, b = first.metrics.get(key), second.metrics.get(key)
    if a is None or b is None:
        return ""
    told = f"The second, {second.name}, has OCS {times(b)} on validation against {times(a)}"
    spread = _spread(first), _spread(second)
    if None in spread:
        return f"{told}."
    reach = sum(s for s in spread if s is not None)
    if a - b <= reach:
        return (
            f"{told}: the difference, {times(a - b)}, is within the noise of validation accuracy "
            f"(about {times(reach)}), so the order of these two is not settled."
        )
    return f"{told}: more than the noise of validation accuracy (about {times(reach)}) explains."


def _spread(row: Row) -> float | None:
    """Half-width of OCS on validation that follows from the drop's interval."""
    low = row.metrics.get("validation/accuracy/drop_points_low")
    high = row.metrics.get("validation/accuracy/drop_points_high")
    ocs, P = row.metrics.get("validation/score/ocs"), row.metrics.get("validation/ratio/P")
    accuracy = row.metrics.get(f"validation/{accuracy_key([row])}")
    if low is None or high is None or ocs is None or not P or not accuracy:
        return None
    baseline = accuracy / P
    return abs(ocs / P) * (high - low) / 2 / 100 / baseline


def _contains_one(row: Row) -> bool:
    low, high = row.metrics.get("ratio/its_low"), row.metrics.get("ratio/its_high")
    return low is not None and high is not None and low <= 1 <= high
