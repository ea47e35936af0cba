"""The comparison on a parent run: table, pictures, report, saved views, note."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from netzip_mlflow import scoring, training
from netzip_mlflow.report import plots, sheet, table, views
from netzip_mlflow.report.html import report
from netzip_mlflow.report.markup import clip
from netzip_mlflow.report.ranking import accuracy_key, arrange
from netzip_mlflow.runs import candidates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from netzip_mlflow.measuring import Measurement
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runs.candidates import Candidate
    from netzip_mlflow.runs.job import Job
    from netzip_mlflow.scoring import Choice, Constraints

__all__ = ["NOTE", "WITH_SEARCH", "links", "note", "pieces", "publish"]

NOTE = "mlflow.note.content"
VIEWS = (("Overview", views.OVERVIEW), ("Trade-offs", views.TRADE_OFFS))
WITH_SEARCH = (("Search", views.SEARCH), *VIEWS)


def publish(work: Job, made: Sequence[Candidate], recipe: Recipe, limits: Constraints) -> Choice:
    """The comparison of one run's candidates, graded by `limits`, on their parent run."""
    frame = pd.DataFrame([candidates.row(c).record() for c in made])
    origin = made[0]
    assert origin.measured is not None  # noqa: S101 (graded before)
    assert origin.measured.basis is not None  # noqa: S101
    choice = scoring.best(
        {c.name: c.measured.metrics for c in made[1:] if c.measured is not None},
        limits,
        origin.measured.metrics,
    )
    machine, fingerprint = work.fingerprint(origin.measured.model.session)
    group = views.Group(
        origin.run.id, origin.measured.basis.label(), origin.measured.terms, fingerprint
    )
    content = {
        "constraint": limits.describe(),
        "machine": _readable(machine),
        "recipe_yaml": recipe.to_yaml(),
        "subject": _subject(recipe, origin.measured),
        "noisy": origin.measured.facts.get("noisy", []),
        "per_class": {
            c.name: pd.DataFrame(c.measured.per_class)
            for c in made[1:]
            if c.measured is not None and c.measured.per_class
        },
    }
    pieces(work, frame, choice, group, recipe.name, content)
    work.piece("environment.json", work.run.text, json.dumps(machine, indent=2), "environment.json")
    best = next((c for c in made if c.name == choice.named), None)
    verdict = best.measured.verdict if best and best.measured else None
    tags = {
        "netzip.verdict": verdict.grade if verdict else "",
        "netzip.best": choice.best or "",
        "netzip.reason": choice.reason,
        "netzip.basis": group.basis,
        "netzip.terms": group.terms,
        "netzip.fingerprint": fingerprint,
        "netzip.baseline": origin.run.id,
        NOTE: note(choice, work.run.experiment_id, missing=work.missing),
    }
    work.piece("the choice's tags", work.run.log, _parent_metrics(best), tags=tags)
    return choice


def _subject(recipe: Recipe, baseline: Measurement) -> dict[str, str]:
    """What was compared, and how it was timed, label -> value."""
    metrics = baseline.metrics
    itself, *ends = (metrics[f"speed/aa_ratio{end}"] for end in ("", "_low", "_high"))
    return {
        "Task": recipe.task,
        "Network": recipe.model.name or recipe.model.factory or recipe.model.uri or "",
        "Data": recipe.data.name or recipe.data.factory or "",
        "Seed": str(recipe.seed),
        "Timing": f"{metrics['speed/rounds']:.0f} interleaved rounds, stopped by"
        f" {baseline.facts.get('stopped')}; baseline against itself {itself:.3f}"
        f" [{ends[0]:.3f}, {ends[1]:.3f}]",
    }


def pieces(
    work: Job,
    frame: pd.DataFrame,
    choice: Choice,
    group: views.Group,
    title: str,
    content: Mapping[str, Any],
    *,
    folder: str = "",
    experiment: str | None = None,
) -> None:
    """Pictures, table, page and views of one group, each apart: `work.missing` says which are not
    there.

    Args:
        content: what the page says beside the frame, by parameter of `report`.
    """
    place = work.folder / "comparison" / folder
    inside, where = f"{folder}/".lstrip("/"), folder or None
    texts = _figures(work, frame, choice, folder)

    def write_table() -> None:
        place.mkdir(parents=True, exist_ok=True)
        shown = table.comparison(frame)
        rows = shown.to_dict("records")
        file = sheet.write(place / "comparison.csv", rows, [*shown.columns])
        work.run.artifact(file, where)

    def write_page() -> None:
        place.mkdir(parents=True, exist_ok=True)
        file = place / "report.html"
        text = report(
            frame,
            title=title,
            best=choice,
            basis=group.basis,
            terms=group.terms,
            command=work.options.command,
            plots=texts,
            **content,
        )
        file.write_text(text, encoding="utf-8")
        work.run.artifact(file, where)

    work.piece(f"{inside}comparison.csv", write_table)
    work.piece(f"{inside}report.html", write_page)
    home = experiment or work.run.experiment_id
    work.piece(f"{inside}views", _views, work, frame, group, home)


def _figures(work: Job, frame: pd.DataFrame, choice: Choice, folder: str = "") -> dict[str, str]:
    """Draw every picture; logged as svg and png; returns the svg texts for the report."""
    place, name_there = work.folder / "plots" / folder, f"{folder}/plots".lstrip("/")
    drawn = work.piece(name_there, plots.figures, frame, best=choice.best) or {}
    texts = {}
    for name, figure in drawn.items():
        text = work.piece(f"{name_there}/{name}", _saved, figure, place, name)
        if text is not None:
            texts[name] = text
    if texts:
        work.piece(name_there, work.run.artifact, place, name_there)
    return texts


def _saved(figure: Figure, place: Path, name: str) -> str:
    plots.save(figure, place / f"{name}.png")
    return plots.save(figure, place / f"{name}.svg").read_text(encoding="utf-8")


def _views(work: Job, frame: pd.DataFrame, group: views.Group, experiment: str) -> None:
    rows = arrange(frame).measured
    accuracy, columns = accuracy_key(rows), set().union(*(row.metrics for row in rows))
    names = {*columns, *training.LOGGED}
    now = int(time.time() * 1000)
    built = [view(names, group, accuracy) for view in (views.overview, views.trade_offs)]
    tags = dict(views.tag(view, now_ms=now) for view in built)
    said = f"Compressed models compared: {links(experiment)}"
    work.tracker.set_experiment_tags(experiment, {**tags, NOTE: said})


def links(experiment: str, shown: Sequence[tuple[str, str]] = VIEWS) -> str:
    """Markdown to saved views, by name and id."""
    return " · ".join(f"[{name}]({views.link(experiment, view)})" for name, view in shown)


def note(
    choice: Choice,
    experiment: str,
    shown: Sequence[tuple[str, str]] = VIEWS,
    missing: Mapping[str, str] | None = None,
) -> str:
    """The parent's note: the choice, where to look, and what is `missing` there, with why."""
    named = (
        f"**best: {choice.best}**"
        if choice.best
        else f"**no candidate is feasible**; least violating: {choice.least_violating}"
    )
    lines = [
        f"{named}: {choice.reason}",
        "",
        f"Views: {links(experiment, shown)}",
        "",
        "Artifacts: `report.html`, `comparison.csv`, `plots/`",
    ]
    if missing:
        lines += ["", "**Not made**, though all is measured (`netzip compare` tries again):", ""]
        lines += [f"- `{what}`: {clip(why)}" for what, why in missing.items()]
    return "\n".join(lines)


def _parent_metrics(best: Candidate | None) -> dict[str, float]:
    """The named candidate's main figures on the parent, so that parents can be listed by them."""
    if best is None or best.measured is None:
        return {}
    wanted = ("score/ocs", "accuracy/drop_points", "ratio/P", "ratio/S", "ratio/C", "ratio/its")
    return {f"best/{k}": best.measured.metrics[k] for k in wanted if k in best.measured.metrics}


def _readable(machine: Mapping[str, Any]) -> dict[str, str]:
    """The fingerprint as label and text, for a page."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {text(v)}" for k, v in value.items())
        if isinstance(value, list | tuple):
            return ", ".join(map(text, value))
        return "not known" if value is None else str(value)

    return {key.replace("_", " ").capitalize(): text(value) for key, value in machine.items()}
