"""What the commands take: the common options, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from netzip_mlflow import recipe as recipes
from netzip_mlflow.errors import InputError, Problem, did_you_mean

__all__ = [
    "DryRunOption",
    "ExperimentOption",
    "JsonOption",
    "NoCacheOption",
    "OnlyOption",
    "QuietOption",
    "RecipeArgument",
    "RecipeOption",
    "SeedOption",
    "SetOption",
    "ThreadsOption",
    "UriOption",
    "check_engine",
    "count",
    "numbers",
    "open_store",
    "pair",
    "parts",
    "read_recipe",
]

DIGITS = 9  # of a number of things; Python reads no number of thousands
DEFAULT_RECIPE = "recipes/digits.yaml"

RecipeArgument = Annotated[
    str | None, typer.Argument(metavar="RECIPE", help="a recipe's YAML file")
]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help="the same, as an option")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="override the recipe; repeatable"),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="only these candidates; repeatable"),
]
ExperimentOption = Annotated[
    str | None, typer.Option(help="experiment in MLflow (default: netzip)")
]
UriOption = Annotated[
    str | None, typer.Option(help="tracking store (default: MLFLOW_TRACKING_URI, ./mlflow.db)")
]
SeedOption = Annotated[int | None, typer.Option(help="overrides the recipe's seed")]
ThreadsOption = Annotated[int | None, typer.Option(help="overrides measure.threads")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="print the plan and an estimate, do nothing")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="no progress")]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="compute every technique, keep no intermediate result")
]
JsonOption = Annotated[bool, typer.Option("--json", help="one machine-readable object on stdout")]


def read_recipe(
    path: str | None,
    option: str | None,
    overrides: list[str] | None,
    seed: int | None,
    threads: int | None,
    *,
    files: bool = True,
) -> recipes.Recipe:
    """The recipe that a command was given, checked by every room that reads a part of it.

    `files`: data and weights must be there; a dry run plans without them, and says so.
    """
    from netzip_mlflow import data, models, runtimes, search, tasks, techniques
    from netzip_mlflow.metrics import catalogue

    given = list(parts(overrides, ";"))
    given += [f"seed={seed}"] if seed is not None else []
    given += [f"measure.threads={threads}"] if threads is not None else []
    rooms = [partial(data.check, files=files), partial(models.check, files=files)]
    checks = [*rooms, tasks.check, techniques.check, runtimes.check, search.check]
    checks.append(catalogue.check)
    return tasks.complete(recipes.load(path or option or DEFAULT_RECIPE, given, checks))


def parts(values: Sequence[str] | None, separator: str) -> list[str]:
    """MLproject passes one text where the command line takes an option several times."""
    return [
        part.strip() for value in values or [] for part in value.split(separator) if part.strip()
    ]


def pair(option: str, text: str) -> tuple[str, str]:
    """`acc=top1` as two words."""
    key, separator, value = text.partition("=")
    if not separator or not key or not value:
        raise InputError(Problem(option, f"{text!r}", "HEADER=MEANING, as acc=top1"))
    return key, value


def numbers(option: str, text: str) -> tuple[float, ...]:
    """`0.5,0.5,0.5` as floats."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(Problem(option, f"{text!r}", "numbers separated by commas")) from None


def count(option: str, text: str) -> int:
    """`4` as a number of things, 1 or more."""
    if not text.strip().isdecimal() or len(text) > DIGITS or int(text) < 1:
        raise InputError(Problem(option, f"{text!r}", "an integer, 1 or more"))
    return int(text)


def check_engine(engine: str, workers: int) -> None:
    """`--engine`: who makes a search's trials beside the command itself."""
    known = ("local", "ray")
    if engine not in known:
        hint = did_you_mean(engine, known)
        raise InputError(Problem("--engine", f"{engine!r} is unknown", ", ".join(known), hint))
    if engine == "ray" and workers > 1:
        what = "Ray's cluster decides how many trials are made at once"
        raise InputError(Problem("--workers", what, "--engine local"))


def open_store(uri: str | None) -> str:
    """The store's address; asked first of all, since everything else may import something heavy.

    Raises:
        TrackingUnavailable: it cannot be used.
    """
    from netzip_mlflow.tracking import check_reachable, tracking_uri

    store = tracking_uri(uri)
    check_reachable(store)
    return store
