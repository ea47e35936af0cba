"""The commands: each calls one stage and prints what it found."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netzip_mlflow.cli.arguments import (
    DryRunOption,
    ExperimentOption,
    JsonOption,
    NoCacheOption,
    OnlyOption,
    QuietOption,
    RecipeArgument,
    RecipeOption,
    SeedOption,
    SetOption,
    ThreadsOption,
    UriOption,
    check_engine,
    count,
    numbers,
    open_store,
    pair,
    parts,
    read_recipe,
)
from netzip_mlflow.cli.streams import Command, stdout
from netzip_mlflow.databases import without_password
from netzip_mlflow.errors import InputError, Problem

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.runs.job import Options

__all__ = ["app"]

app = typer.Typer(
    name="netzip",
    help="Compress a trained network, measure what ships, score it, compare it in MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
command = functools.partial(app.command, cls=Command)
FAILED, INFEASIBLE = 1, 3


@command()
def compress(
    path: RecipeArgument = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
    experiment: ExperimentOption = None,
    tracking_uri: UriOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    dry_run: DryRunOption = False,
    no_cache: NoCacheOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    require_feasible: Annotated[
        bool, typer.Option("--require-feasible", help="status 3 when no candidate keeps the limit")
    ] = False,
) -> None:
    """Train if needed, make all candidates, measure, score and compare them."""
    store = None if dry_run else open_store(tracking_uri)
    loaded = read_recipe(path, recipe, overrides, seed, threads, files=not dry_run)
    chosen = tuple(parts(only, ","))
    if dry_run:
        _print_plan(loaded, chosen, as_json)
        return
    with _options(experiment, store, quiet, cache=not no_cache) as options:
        from netzip_mlflow.stages.compress import compress as run

        outcome = run(loaded, options, chosen)
    from netzip_mlflow.cli import output

    store = options.tracking_uri
    _emit(
        as_json,
        lambda: output.compress_object(outcome),
        lambda: output.compress_text(outcome, store),
    )
    if require_feasible and outcome.choice.best is None:
        raise typer.Exit(INFEASIBLE)


@command()
def train(
    path: RecipeArgument = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    experiment: ExperimentOption = None,
    tracking_uri: UriOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train, export and measure the baseline alone."""
    store = None if dry_run else open_store(tracking_uri)
    loaded = read_recipe(path, recipe, overrides, seed, threads, files=not dry_run)
    if dry_run:
        _print_plan(loaded.model_copy(update={"candidates": {}}), (), as_json)
        return
    with _options(experiment, store, quiet) as options:
        from netzip_mlflow.stages.train import train as run

        made = run(loaded, options)
    from netzip_mlflow.cli import output

    _emit(as_json, lambda: output.train_object(made), lambda: output.train_text(made))


@command()
def search(
    path: RecipeArgument = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    trials: Annotated[str, typer.Option(help="trials of the study (search.trials)")] = "",
    timeout: Annotated[str, typer.Option(help="as 90s, 30m or 8h (search.timeout)")] = "",
    max_drop_points: Annotated[
        str, typer.Option(help="the constraint (score.max_drop_points)")
    ] = "",
    workers: Annotated[
        str, typer.Option(help="processes on this machine, which share its cores")
    ] = "1",
    engine: Annotated[
        str, typer.Option(help="local, or ray: trials are tasks of the cluster RAY_ADDRESS names")
    ] = "local",
    study: Annotated[str, typer.Option(help="a study to go on with, or the new one's name")] = "",
    storage: Annotated[
        str,
        typer.Option(
            envvar="NETZIP_STORAGE",
            help="the study's database (default: sqlite beside the tracking store)",
        ),
    ] = "",
    restart: Annotated[
        bool, typer.Option("--restart", help="forget the trials of --study, and begin it again")
    ] = False,
    experiment: ExperimentOption = None,
    tracking_uri: UriOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    dry_run: DryRunOption = False,
    no_cache: NoCacheOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search for the best OCS within the constraint; the winner is measured on test."""
    at_once = count("--workers", workers or "1")
    check_engine(engine or "local", at_once)
    if restart and not study:
        raise InputError(Problem("--restart", "no study is named", "with --study NAME"))
    store = None if dry_run else open_store(tracking_uri)
    given = {
        "search.trials": trials,
        "search.timeout": timeout,
        "score.max_drop_points": max_drop_points,
    }
    told = [f"{key}={value}" for key, value in given.items() if value]
    loaded = read_recipe(
        path, recipe, [*(overrides or []), *told], seed, threads, files=not dry_run
    )
    if dry_run:
        from netzip_mlflow.stages.plan import plan_search
        from netzip_mlflow.stages.search.setup import space_of

        planned = plan_search(loaded, space_of(loaded))
        _emit(as_json, planned.as_object, planned.as_text)
        return
    with _options(experiment, store, quiet, cache=not no_cache) as options:
        from netzip_mlflow.stages.search.command import Request, search_recipe

        request = Request(
            study or None, storage or None, at_once, engine or "local", restart=restart
        )
        found = search_recipe(loaded, options, request)
    if found is None:
        _emit(
            as_json,
            lambda: {"study": study, "leads": False},
            lambda: f"{study}: led by another process, which compares and reports",
        )
        return
    from netzip_mlflow.cli import output

    store = options.tracking_uri
    _emit(as_json, lambda: output.search_object(found), lambda: output.search_text(found, store))
    if not found.feasible:
        raise typer.Exit(INFEASIBLE)


@command()
def measure(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="models:/, runs:/ or paths")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="the same, as an option; repeatable")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="default: the one that the model's tags name")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="a recipe that gives data: accuracy and score too")
    ] = None,
    overrides: SetOption = None,
    runtime: Annotated[
        str | None,
        typer.Option(help="overrides measure.runtimes: names by comma, the first one scores"),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="input of another tool's file: nchw or nhwc")
    ] = "nchw",
    mean: Annotated[
        str, typer.Option(help="its mean on the [0, 1] scale, one or one per channel")
    ] = "0",
    std: Annotated[str, typer.Option(help="its standard deviation, likewise")] = "1",
    scale: Annotated[float, typer.Option(help="its scale: 255 for pixels from 0 to 255")] = 1.0,
    experiment: ExperimentOption = None,
    tracking_uri: UriOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="files only, nothing is written to MLflow")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure any deployables on this machine, interleaved with their baseline."""
    uris = [*(models or []), *parts(model, ",")]
    if not uris:
        raise InputError(
            "measure: no model given; allowed: models:/..., runs:/..., paths of ONNX files"
        )
    store = None if no_log else open_store(tracking_uri)
    if overrides and not recipe:
        raise InputError("measure: --set overrides a recipe, and no --recipe is given")
    loaded = read_recipe(None, recipe, overrides, seed, threads) if recipe else None
    from netzip_mlflow.runtimes.adapter import Adapter
    from netzip_mlflow.stages import measure as stage

    spec = stage.spec_of(loaded, threads, parts([runtime or ""], ","))
    adapter = Adapter(layout, numbers("--mean", mean), numbers("--std", std), scale)  # type: ignore[arg-type]
    if no_log:
        from netzip_mlflow.progress import watching

        with watching(quiet) as (progress, _):
            found = stage.measure_files(
                uris,
                baseline or None,
                recipe=loaded,
                adapter=adapter,
                spec=spec,
                progress=progress,
            )
    else:
        with _options(experiment, store, quiet) as options:
            found = stage.measure(
                uris,
                options,
                baseline=baseline or None,
                recipe=loaded,
                adapter=adapter,
                spec=spec,
            )
    from netzip_mlflow.cli import output

    _emit(as_json, lambda: output.measure_object(found), lambda: output.measure_text(found))


@command()
def compare(
    run_ids: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="ids of runs or parents")
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option(help="the same, as an option; repeatable")
    ] = None,
    where: Annotated[
        str, typer.Option("--filter", help="MLflow's filter over the experiment's runs")
    ] = "",
    experiment: ExperimentOption = None,
    tracking_uri: UriOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare runs that are already in MLflow: by id, by filter, or a whole experiment."""
    chosen = [*(run_ids or []), *parts(runs, ",")]
    with _options(experiment, open_store(tracking_uri), quiet) as options:
        from netzip_mlflow.stages.compare import compare as run

        run_id, groups = run(options, chosen, where, source=experiment or None)
    from netzip_mlflow.cli import output

    _emit(
        as_json, lambda: output.compare_object(run_id, groups), lambda: output.compare_text(groups)
    )


@command()
def score(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE.csv", help="measured figures, the baseline first")
    ],
    baseline: Annotated[str | None, typer.Option(help="name of the baseline's row")] = None,
    accuracy: Annotated[
        str | None, typer.Option(help="accuracy column (default: top1, map50_95 or map50)")
    ] = None,
    speed: Annotated[str, typer.Option(help="chats, latency, macs or ops")] = "chats",
    size: Annotated[str, typer.Option(help="disk, zip, params, nonzero, cpu or ram")] = "disk",
    weights: Annotated[str, typer.Option(help="the lambdas")] = "P=1,S=1,C=1,E=1",
    zeta: Annotated[float, typer.Option(help="the paper's constant of the hardware")] = 1.0,
    column: Annotated[
        list[str] | None, typer.Option(metavar="HEADER=MEANING", help="as acc=top1; repeatable")
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="write the rows to MLflow as runs")] = False,
    experiment: ExperimentOption = None,
    tracking_uri: UriOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Ratios and OCS of a table that was measured anywhere."""
    from netzip_mlflow import scoring
    from netzip_mlflow.stages import score as stage

    columns = dict(pair("--column", text) for text in column or [])
    basis = scoring.Basis(
        accuracy or stage.find_accuracy(table, columns),
        speed,
        size,
        scoring.Weights.parse(weights),
        zeta,
    )
    rows = stage.score(table, basis, columns=columns, baseline=baseline)
    if log:
        with _options(experiment, open_store(tracking_uri), quiet) as options:
            stage.log(rows, table.stem, basis, options)
    from netzip_mlflow.cli import output

    _emit(as_json, lambda: output.score_object(rows, basis), lambda: output.score_text(rows, basis))


@command()
def validate(
    path: RecipeArgument = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
) -> None:
    """Read a recipe and report everything that is wrong with it."""
    loaded = read_recipe(path, recipe, overrides, None, None)
    count = len(loaded.candidates)
    _print(f"{loaded.name}: valid, {count} candidate{'s' * (count != 1)}, digest {loaded.digest()}")


@command()
def init(
    path: Annotated[Path, typer.Argument(help="the file to write")] = Path("recipe.yaml"),
) -> None:
    """Write a commented recipe to start from; an existing file is never overwritten."""
    from netzip_mlflow.stages.init import write

    write(path)
    _print(f"{path}: written; next: netzip validate {path} && netzip compress {path}")


@command("list")
def list_(
    what: Annotated[str, typer.Argument(help="techniques, models, data, metrics or runtimes")],
    recipe: Annotated[
        str | None, typer.Option(help="with the metrics of its task and families")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what can be named in a recipe, or what is measured."""
    from netzip_mlflow.stages import catalogue

    if recipe is not None:  # opens its task and families, whose records are known then
        read_recipe(recipe, None, None, None, None, files=False)
    table = catalogue.listing(what)
    width = max(map(len, table))
    _emit(as_json, lambda: table, lambda: "\n".join(f"{k:<{width}}  {v}" for k, v in table.items()))


@command()
def doctor(tracking_uri: UriOption = None, as_json: JsonOption = False) -> None:
    """What this machine can measure, and with what."""
    from netzip_mlflow.stages import catalogue
    from netzip_mlflow.tracking import tracking_uri as resolve

    facts = catalogue.examine(resolve(tracking_uri))
    _emit(as_json, lambda: facts, lambda: "\n".join(f"{k:<22} {v}" for k, v in facts.items()))


@command()
def export(
    model: Annotated[str, typer.Argument(help="models:/..., runs:/... or a path")],
    folder: Annotated[Path, typer.Argument(help="where to put it")],
    opset: Annotated[
        int | None, typer.Option(help="convert to this opset, refused where it cannot be")
    ] = None,
    tracking_uri: UriOption = None,
) -> None:
    """Put a candidate into a folder: model, description, golden answers, a short predict.py."""
    with _options(None, open_store(tracking_uri), quiet=True) as options:
        from netzip_mlflow.stages.export import export as run

        written = run(model, folder, opset, tracking_uri=options.tracking_uri)
    _print(f"{folder}: {', '.join(written)}")


@command()
def resend(
    folder: Annotated[Path, typer.Argument(help="netzip-unsent-..., as a message named it")],
    tracking_uri: Annotated[
        str | None, typer.Option(help="tracking store (default: the one that the folder names)")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send what could not be sent to MLflow; nothing is sent twice."""
    from netzip_mlflow.progress import watching
    from netzip_mlflow.stages.resend import resend as run

    with watching(quiet) as (_, say):
        resent = run(folder, tracking_uri, say)
    _emit(as_json, resent.as_object, resent.as_text)
    if resent.left:
        raise typer.Exit(FAILED)


@contextlib.contextmanager
def _options(
    experiment: str | None, store: str | None, quiet: bool, cache: bool = True
) -> Iterator[Options]:
    """Options of a run, with progress shown while it lasts."""
    from netzip_mlflow.progress import watching
    from netzip_mlflow.runs.job import Options

    assert store is not None  # noqa: S101 (only a dry run, or one without a store, has none)
    with watching(quiet) as (progress, say):
        warn = _warn if quiet else say
        yield Options(store, experiment or None, _command(), progress, say, cache, warn)


def _warn(line: str) -> None:
    sys.stderr.write(f"netzip: {line}\n")


def _command() -> str:
    import shlex

    return shlex.join(["netzip", *map(without_password, sys.argv[1:])])


def _print_plan(recipe: Recipe, only: tuple[str, ...], as_json: bool) -> None:
    from netzip_mlflow.stages.plan import plan

    found = plan(recipe, only)
    _emit(as_json, found.as_object, found.as_text)


def _emit(as_json: bool, value: Callable[[], Any], text: Callable[[], str]) -> None:
    said = json.dumps(_finite(value()), indent=2, allow_nan=False) if as_json else text
    _print(said)


def _finite(value: Any) -> Any:
    """What JSON can say: a figure that is not finite is null."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(text: str | Callable[[], str]) -> None:
    with stdout():  # a text that is made now is laid out for the terminal that it is written to
        typer.echo(text if isinstance(text, str) else text())
