"""The comparison: table, plots, report and saved views, of one compress run or of any runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from netzip_mlflow import scoring, training
from netzip_mlflow.errors import InputError, Problem, did_you_mean
from netzip_mlflow.report import plots, table, views
from netzip_mlflow.report.html import report
from netzip_mlflow.stages import candidates
from netzip_mlflow.stages.job import Job, Options, job, open_tracker, version_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

    from netzip_mlflow.metrics.latency import Latency
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.scoring import Choice, Constraints
    from netzip_mlflow.stages.candidates import Candidate
    from netzip_mlflow.tracking import Tracker

__all__ = ["WITH_SEARCH", "compare", "links", "note", "publish"]

NOTE = "mlflow.note.content"
COMPARED = ("baseline", "candidate", "trial", "measurement", "scored")
GROUPED = ("basis", "terms", "baseline", "fingerprint")
VIEWS = (("Overview", views.OVERVIEW), ("Trade-offs", views.TRADE_OFFS))
WITH_SEARCH = (("Search", views.SEARCH), *VIEWS)


def publish(
    work: Job, made: Sequence[Candidate], recipe: Recipe, found: Latency, limits: Constraints
) -> Choice:
    """The comparison of one run's candidates, graded by `limits`, on their parent run."""
    frame = pd.DataFrame([candidates.row(c) for c in made])
    origin = made[0]
    assert origin.measured is not None  # noqa: S101 (graded before)
    assert origin.measured.basis is not None  # noqa: S101
    choice = scoring.best(
        {c.name: c.measured.metrics for c in made[1:] if c.measured is not None},
        limits,
        origin.measured.metrics,
    )
    machine, fingerprint = work.fingerprint(origin.measured.session)
    page = report(
        frame,
        title=recipe.name,
        best=choice,
        constraint=limits.describe(),
        basis=origin.measured.basis.label(),
        terms=origin.measured.terms,
        machine=_readable(machine),
        recipe_yaml=recipe.to_yaml(),
        command=work.options.command,
        subject={
            "Task": recipe.task,
            "Network": recipe.model.name or recipe.model.factory or recipe.model.uri or "",
            "Data": recipe.data.name or recipe.data.factory or "",
            "Seed": str(recipe.seed),
            "Timing": f"{found.rounds} interleaved rounds, stopped by {found.stopped}; baseline"
            f" against itself {found.aa.value:.3f} [{found.aa.low:.3f}, {found.aa.high:.3f}]",
        },
        noisy=found.reasons,
        plots=_figures(work, frame, choice),
        per_class={
            c.name: pd.DataFrame(c.measured.per_class)
            for c in made[1:]
            if c.measured is not None and c.measured.per_class
        },
    )
    _artifacts(work, frame, page)
    work.run.text(json.dumps(machine, indent=2), "environment.json")
    group = views.Group(
        origin.run.id, origin.measured.basis.label(), origin.measured.terms, fingerprint
    )
    experiment = work.run.experiment_id
    _views(work, frame, group, recipe.score.accuracy, experiment)
    best = next((c for c in made if c.name == choice.named), None)
    work.run.log(
        _parent_metrics(best),
        tags={
            "netzip.verdict": best.measured.verdict.grade
            if best and best.measured and best.measured.verdict
            else "",
            "netzip.best": choice.best or "",
            "netzip.reason": choice.reason,
            "netzip.basis": group.basis,
            "netzip.terms": group.terms,
            "netzip.fingerprint": fingerprint,
            "netzip.baseline": origin.run.id,
            NOTE: note(choice, experiment),
        },
    )
    return choice


def compare(
    options: Options, runs: Sequence[str] = (), where: str = "", source: str | None = None
) -> tuple[str, list[tuple[pd.DataFrame, Choice]]]:
    """The command `compare`: runs already in MLflow, by id, by filter, or a whole experiment.

    `source` is the experiment (name or id) to read; by default the one that the comparison is in.

    Runs with another baseline, basis, terms or fingerprint form groups of their own; each group is
    compared apart, with artifacts under `group-1/`, `group-2/`... when there are several.

    Raises:
        InputError: nothing to compare.
    """
    tracker = open_tracker(options)
    groups = _grouped(_read(tracker, runs, where, source))
    if not groups:
        raise InputError("nothing to compare: no finished baseline with candidates was found")
    with job("compare", "compare", options, tracker) as work:
        work.run.log(tags=version_tag())
        compared = []
        for number, rows in enumerate(groups, 1):
            folder = f"group-{number}" if len(groups) > 1 else ""
            compared.append(_publish_group(work, rows, folder))
        return work.run.id, compared


def _experiment(tracker: Tracker, source: str | None) -> str:
    if source is None:
        return tracker.experiment_id
    known = {e.name: e.experiment_id for e in tracker.client.search_experiments()}
    if source in known.values():
        return source
    if source not in known:
        hint = did_you_mean(source, known)
        raise InputError(
            Problem("--experiment", f"{source!r} is not in the store", ", ".join(known), hint)
        )
    return known[source]


def _publish_group(
    work: Job, rows: Sequence[MlflowRun], folder: str
) -> tuple[pd.DataFrame, Choice]:
    frame = pd.DataFrame([_row(run) for run in rows])
    tags = rows[0].data.tags
    choice = choose(frame, rows)
    page = report(
        frame,
        title=f"{tags.get('netzip.recipe', 'runs in MLflow')} {folder}".strip(),
        best=choice,
        constraint="each run's own, as it was logged",
        basis=tags.get("netzip.basis", ""),
        terms=tags.get("netzip.terms", ""),
        machine={"Fingerprint": tags.get("netzip.fingerprint", "")},
        command=work.options.command,
        noisy=_noisy(frame),
        plots=_figures(work, frame, choice, folder),
    )
    _artifacts(work, frame, page, folder)
    group = views.Group(
        *(tags.get(f"netzip.{k}", "") for k in ("baseline", *GROUPED[:2], GROUPED[3]))
    )
    experiment = rows[0].info.experiment_id
    _views(work, frame, group, _accuracy(group.basis), experiment)
    said = note(choice, experiment)
    work.run.log(
        tags={"netzip.best": choice.best or "", "netzip.reason": choice.reason, NOTE: said}
    )
    return frame, choice


def choose(frame: pd.DataFrame, rows: Sequence[MlflowRun]) -> Choice:
    """The choice among runs that were graded when they were made; their own constraint holds."""
    metrics = {
        name: run.data.metrics
        for name, run in zip(frame["name"], rows, strict=True)
        if not _is_baseline(run)
    }
    return scoring.best(metrics)


def _read(tracker: Tracker, runs: Sequence[str], where: str, source: str | None) -> list[MlflowRun]:
    """The runs asked for, parents' children too, and the baselines they were measured with."""
    from mlflow.exceptions import MlflowException

    client = tracker.client
    if runs:
        try:
            found = [client.get_run(run_id) for run_id in runs]
        except MlflowException as error:
            raise InputError(Problem("--runs", f"cannot be read: {error}", "ids of runs")) from None
        parents = [r for r in found if r.data.tags.get("netzip.kind") not in COMPARED]
        for parent in parents:
            below = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
            found += _search(client, below, parent.info.experiment_id)
    else:
        found = _search(client, where, _experiment(tracker, source))
    once = {r.info.run_id: r for r in found if r.data.tags.get("netzip.kind") in COMPARED}
    origins = {r.data.tags.get("netzip.baseline", "") for r in once.values()} - {"", *once}
    return [*once.values(), *(client.get_run(origin) for origin in origins)]


def _search(client: MlflowClient, where: str, experiment: str) -> list[MlflowRun]:
    from mlflow.exceptions import MlflowException

    found, token = [], None
    while True:
        try:
            page = client.search_runs([experiment], where, max_results=1000, page_token=token)
        except MlflowException as error:
            raise InputError(Problem("--filter", f"{where!r} is refused: {error}")) from None
        found += page
        token = page.token
        if not token:
            return found


def _grouped(runs: Iterable[MlflowRun]) -> list[list[MlflowRun]]:
    """Runs that may stand in one table, the baseline first; a baseline alone is no group."""
    groups: dict[tuple[str, ...], list[MlflowRun]] = {}
    for run in sorted(runs, key=lambda r: r.info.start_time):
        if run.info.status == "FINISHED" and "score/ocs" in run.data.metrics:
            key = tuple(run.data.tags.get(f"netzip.{name}", "") for name in GROUPED)
            groups.setdefault(key, []).append(run)
    ordered = [sorted(rows, key=lambda r: not _is_baseline(r)) for rows in groups.values()]
    return [rows for rows in ordered if len(rows) > 1 and _is_baseline(rows[0])]


def _is_baseline(run: MlflowRun) -> bool:
    """Whatever its kind: a measurement's baseline is a measurement too."""
    return run.data.tags.get("netzip.baseline") == run.info.run_id


def _row(run: MlflowRun) -> dict[str, Any]:
    tags = run.data.tags
    texts = {
        "name": run.info.run_name,
        "kind": "baseline" if _is_baseline(run) else tags["netzip.kind"],
        "chain": tags.get("netzip.chain", ""),
        "status": run.info.status,
        "run_id": run.info.run_id,
        "verdict": tags.get("netzip.verdict", ""),
        "reasons": tags.get("netzip.reason", ""),
        "flags": tags.get("netzip.flags", ""),
        "error": "",
    }
    return texts | json.loads(tags.get("netzip.facts", "{}")) | run.data.metrics


def _figures(work: Job, frame: pd.DataFrame, choice: Choice, folder: str = "") -> dict[str, str]:
    """Draw every picture; logged as svg and png; returns the svg texts for the report."""
    place = work.folder / "plots" / folder
    texts = {}
    for name, figure in plots.figures(frame, best=choice.best).items():
        plots.save(figure, place / f"{name}.png")
        texts[name] = plots.save(figure, place / f"{name}.svg").read_text(encoding="utf-8")
    work.run.artifact(place, f"{folder}/plots".lstrip("/"))
    return texts


def _artifacts(work: Job, frame: pd.DataFrame, page: str, folder: str = "") -> None:
    place = work.folder / "comparison" / folder
    place.mkdir(parents=True, exist_ok=True)
    table.comparison(frame).to_csv(place / "comparison.csv", index=False, encoding="utf-8")
    (place / "report.html").write_text(page, encoding="utf-8")
    work.run.artifact(place, folder or None)


def _views(
    work: Job, frame: pd.DataFrame, group: views.Group, accuracy: str, experiment: str
) -> None:
    columns = [c for c in frame.columns if "/" in c and not c.startswith("absent ")]
    names = {*columns, *training.LOGGED}
    now = int(time.time() * 1000)
    built = [view(names, group, accuracy=accuracy) for view in (views.overview, views.trade_offs)]
    tags = dict(views.tag(view, now_ms=now) for view in built)
    said = f"Compressed models compared: {links(experiment)}"
    work.tracker.set_experiment_tags(experiment, {**tags, NOTE: said})


def links(experiment: str, shown: Sequence[tuple[str, str]] = VIEWS) -> str:
    """Markdown to saved views, by name and id."""
    return " · ".join(f"[{name}]({views.link(experiment, view)})" for name, view in shown)


def note(choice: Choice, experiment: str, shown: Sequence[tuple[str, str]] = VIEWS) -> str:
    """The parent's note: the choice, and where to look."""
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
    return "\n".join(lines)


def _parent_metrics(best: Candidate | None) -> dict[str, float]:
    """The named candidate's main figures on the parent, so that parents can be listed by them."""
    if best is None or best.measured is None:
        return {}
    wanted = ("score/ocs", "accuracy/drop_points", "ratio/P", "ratio/S", "ratio/C", "ratio/its")
    return {f"best/{k}": best.measured.metrics[k] for k in wanted if k in best.measured.metrics}


def _noisy(frame: pd.DataFrame) -> list[str]:
    flagged = [str(n) for n, f in zip(frame["name"], frame["flags"], strict=True) if "noisy" in f]
    return [f"flagged noisy when measured: {', '.join(flagged)}"] if flagged else []


def _accuracy(basis: str) -> str:
    return dict(part.split("=", 1) for part in basis.split()).get("accuracy", "top1")


def _readable(machine: Mapping[str, Any]) -> dict[str, str]:
    """The fingerprint as label and text, for a page."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {text(v)}" for k, v in value.items())
        if isinstance(value, list | tuple):
            return ", ".join(map(text, value))
        return "not known" if value is None else str(value)

    return {key.replace("_", " ").capitalize(): text(value) for key, value in machine.items()}
