"""A search in words, as Markdown: how far it is while it runs, and what it found."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from netzip_mlflow.metrics.metric import data, points, times
from netzip_mlflow.metrics.row import Row
from netzip_mlflow.report.caveats import order
from netzip_mlflow.report.cells import interval
from netzip_mlflow.report.dimension import domain
from netzip_mlflow.report.ranking import Standing, accuracy_key, arrange
from netzip_mlflow.report.trials import OUTCOMES, Trial, Trials, ordered

__all__ = ["About", "Winner", "duration", "resume", "running", "summary"]

_OCS = "validation/score/ocs"
_LISTED, _SHOWN = 12, 300  # parameters, characters of a reason: MLflow cuts a tag at 8,000
_WHY = {
    "skipped": "with a size and operations that are known before training, no accuracy that the "
    "constraint allows could have beaten the best at that time: nothing is lost",
    "stopped": "too far below the baseline to come within the constraint (in an evaluation that is "
    "certain, in a training it is a rule of experience), or before a training that could not mend "
    "the size or the speed",
    "same": "proposed a second time by the sampler; the same figures",
}


@dataclass(frozen=True)
class About:
    """What does not change while a search goes on; texts.

    Args:
        resume: the command that goes on with it.
    """

    recipe: str
    study: str
    sampler: str
    constraint: str
    resume: str


@dataclass(frozen=True)
class Winner:
    """The model that won the final comparison.

    Args:
        name: its row's name.
        why: why it is this one.
        registered: its address in the registry, empty where it was not registered.
        refusal: why it was not.
    """

    name: str
    why: str
    registered: str = ""
    refusal: str = ""


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best.

    >>> duration(42.4), duration(150), duration(3 * 3600 + 300)
    ('42 s', '2.5 min', '3 h 05 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.2g} min" if seconds < 600 else f"{seconds / 60:.0f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def resume(command: str, study: str, storage: str) -> str:
    """The command that was given, with the study and its database named.

    >>> resume("netzip search r.yaml --study=old --restart --trials 9", "mine", "sqlite:///s.db")
    'netzip search r.yaml --trials 9 --study mine --storage sqlite:///s.db'
    """
    given = shlex.split(command) or ["netzip", "search", "RECIPE"]
    kept, skip = [], False
    for part in given:
        if skip:
            skip = False
        elif part in ("--study", "--storage"):
            skip = True
        elif not part.startswith(("--study=", "--storage=", "--restart")):
            kept.append(part)
    return shlex.join([*kept, "--study", study, "--storage", storage])


def running(about: About, trials: Trials, most: float | None = None) -> str:
    """How far a search is.

    Args:
        most: seconds that it may still take, None: as long as its trials do.
    """
    left = [seconds for seconds in (trials.left, most) if seconds is not None]
    estimate = f", about {duration(max(0.0, min(left)))} left" if left else ""
    head = f"{trials.ended} of {trials.planned} trials have ended"
    lines = [
        f"**Searching**: {head}; {duration(trials.at_work)} at work so far{estimate}.",
        "",
        _so_far(trials),
        "",
        _tally(trials),
        "",
        *_how_to_go_on(about, "If it is interrupted, this goes on with it"),
    ]
    return "\n".join(lines)


def summary(
    about: About,
    trials: Trials,
    compared: pd.DataFrame,
    winner: Winner | None,
    *,
    basis: str,
    terms: str,
    reason: str = "",
    left_out: Sequence[str] = (),
) -> str:
    """What a search found.

    Args:
        compared: the final comparison, a row per model (`standing`).
        winner: the model that won it; None where nothing kept the constraint.
        basis: of the score, and `terms` which took part.
        reason: why nothing won it.
        left_out: sentences on plots that are missing.
    """
    parts = arrange(compared)
    head = _won(parts, trials, winner) if winner else _nothing(reason)
    over = trials.planned - trials.ended
    unended = f" {over} had not ended when its time was over." if over > 0 else ""
    searched = f"{duration(trials.at_work)} at work, sampler `{about.sampler}`"
    lines = [
        *head,
        "",
        f"Basis of the score: `{basis}`; terms {terms}. Constraint: {about.constraint}.",
        "",
        f"**What was searched**: study `{about.study}`, {searched}. {_tally(trials)}{unended}",
        "",
        *_early(trials),
        *_space(trials),
        "",
        *(f"{sentence}\n" for sentence in left_out),
        *_how_to_go_on(about, "More trials of the same study, with a larger `--trials`"),
    ]
    return "\n".join(lines)


def _so_far(trials: Trials) -> str:
    first = trials.first
    if first is None:
        return "No trial has been judged yet."
    if trials.best is None:
        return f"Nothing is within the constraint yet; {_least(first)}"
    drop = "" if first.drop is None else f" (drop {points(first.drop)} points)"
    ocs = times(first.ocs or 0.0)
    return f"Best so far: trial-{first.number}, OCS {ocs} on validation{drop}, `{first.chain}`."


def _tally(trials: Trials) -> str:
    """How many came to what, in one sentence."""
    told = [f"{count} {OUTCOMES[outcome]}" for outcome, count in trials.counts.items() if count]
    lost = (
        f" Besides, {trials.lost} broken off by the end of a process or of the time: what was so is"
        " tried again with the same parameters."
        if trials.lost
        else ""
    )
    return f"Of {trials.planned} planned trials: {', '.join(told) or 'none has ended'}.{lost}"


def _how_to_go_on(about: About, when: str) -> list[str]:
    secret = " (the database's password in place of `***`)" if "***" in about.resume else ""
    return [f"{when}{secret}:", "", f"```\n{about.resume}\n```"]


def _won(parts: Standing, trials: Trials, winner: Winner) -> list[str]:
    row = parts.find(winner.name)
    assert row is not None  # noqa: S101 (it was chosen from the comparison)
    registered = f" Registered as `{winner.registered}`." if winner.registered else ""
    if winner.refusal:
        registered = f" Not registered: {winner.refusal}."
    lines = [
        f"**Winner: {winner.name}**, `{row.chain}`: {winner.why}.{registered}",
        "",
        *_figures(row, accuracy_key(parts.measured)),
        "",
        _gains(row),
    ]
    if row.metrics.get("score/feasible") == 0:
        lines += ["", "On test it is outside the constraint; the choice was made on validation."]
    return [*lines, "", _second(parts, trials, row)]


def _figures(row: Row, accuracy: str) -> list[str]:
    """Validation beside test, each with its interval."""
    wanted = (
        ("OCS", "score/ocs"),
        (f"{accuracy.partition('/')[2]}", accuracy),
        ("drop, points", "accuracy/drop_points"),
        ("P", "ratio/P"),
    )
    lines = ["| | validation (chosen by) | test |", "|---|---|---|"]
    for label, key in wanted:
        cells = (_cell(row, f"validation/{key}", key), _cell(row, key, key))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _cell(row: Row, key: str, of: str) -> str:
    return interval(row, key, (lambda value: f"{value:.4f}") if of == "ratio/P" else None)


def _gains(row: Row) -> str:
    shown = [
        f"{name} {times(value)}"
        for name, key in (("S", "ratio/S"), ("C", "ratio/C"))
        if (value := row.metrics.get(key)) is not None
    ]
    if (size := row.metrics.get("size/disk_bytes")) is not None:
        shown.append(f"{data(size)} on disk")
    if row.metrics.get("ratio/its") is not None:
        shown.append(f"latency ratio {interval(row, 'ratio/its', times)}")
    return f"{', '.join(shown)}."


def _second(parts: Standing, trials: Trials, winner: Row) -> str:
    """The runner-up, and whether noise may have ordered the two.

    Models of the comparison count as it judged them; trials that were not compared by their own
    figures. A chain that stands there twice, as a trial and as the recipe's, is one.
    """
    accuracy = accuracy_key(parts.measured)
    base = parts.baseline.metrics.get(f"validation/{accuracy}")
    judged = {f"trial-{t.number}": t for t in trials.judged if t.outcome == "feasible"}
    compared = {row.name for row in parts.measured}
    rows = [*parts.feasible]
    rows += [_row(t, accuracy, base) for name, t in judged.items() if name not in compared]
    others = [row for row in rows if not _alike(row, winner)]
    if not others:
        return "Nothing else is within the constraint: there is no runner-up."
    return order(winner, max(others, key=lambda row: row.metrics.get(_OCS) or 0.0))


def _alike(one: Row, other: Row) -> bool:
    first, second = (row.metrics.get(_OCS, 0.0) for row in (one, other))
    return one.chain == other.chain and math.isclose(first, second, rel_tol=1e-6)


def _row(trial: Trial, accuracy: str, base: float | None) -> Row:
    """A trial as a row of a comparison, as far as its figures go."""
    P = trial.ratios.get("P")
    figures = {
        _OCS: trial.ocs,
        "validation/ratio/P": P,
        f"validation/{accuracy}": None if P is None or base is None else P * base,
        "validation/accuracy/drop_points_low": trial.low,
        "validation/accuracy/drop_points_high": trial.high,
    }
    metrics = {key: value for key, value in figures.items() if value is not None}
    return Row(f"trial-{trial.number}", chain=trial.chain, accuracy=accuracy, metrics=metrics)


def _nothing(reason: str) -> list[str]:
    return [f"**Nothing is within the constraint**, and nothing was registered: {reason}."]


def _least(trial: Trial) -> str:
    """By how much the least violating one violates what."""
    over = {name: excess for name, excess in trial.violations.items() if excess > 0}
    told = ", ".join(f"{name} by {excess:.2f}" for name, excess in over.items())
    drop = "" if trial.drop is None else f" and has a drop of {points(trial.drop)} points"
    return (
        f"trial-{trial.number}, `{trial.chain}`, violates it least{drop}: {told} "
        "(excess / limit, on validation)."
    )


def _early(trials: Trials) -> list[str]:
    """Why trials were not judged to their end."""
    counts = trials.counts
    lines = [f"- {counts[o]} {OUTCOMES[o]}: {why}." for o, why in _WHY.items() if counts[o]]
    failed = [t for t in trials.trials if t.outcome == "failed"]
    if failed:
        first = " ".join(failed[0].reason.split()) or "its process died at every attempt"
        cut = first if len(first) <= _SHOWN else f"{first[:_SHOWN]}…"
        lines.append(f"- {len(failed)} failed; the first, trial-{failed[0].number}: {cut}")
    return lines


def _space(trials: Trials) -> list[str]:
    names = ordered(trials.varied)
    shown = "; ".join(f"`{name}`: {domain(trials.varied[name])}" for name in names[:_LISTED])
    more = f"; and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return [f"- {len(names)} parameters were varied: {shown}{more}."] if names else []
