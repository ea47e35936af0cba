"""What a search chooses among, what it must keep to, and what it tries first."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netzip_mlflow import scoring, search, techniques
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.recipe import SearchSpec
from netzip_mlflow.search import sizes
from netzip_mlflow.search.study import Planned

if TYPE_CHECKING:
    from netzip_mlflow.recipe import Recipe
    from netzip_mlflow.search import Space
    from netzip_mlflow.stages.search.objective import Trials

__all__ = ["Request", "first", "limits_of", "space_of"]


@dataclass(frozen=True)
class Request:
    """What the command line adds to the recipe's search section.

    Args:
        most: help whoever leads the study with that number of trials, and lead it never.
        restart: forget the trials that the study has.
    """

    study: str | None = None
    storage: str | None = None
    workers: int = 1
    engine: str = "local"
    most: int | None = None
    restart: bool = False


def space_of(recipe: Recipe, samples: int | None = None) -> Space:
    """What a recipe's search chooses among; `samples`: there are so many to train on.

    Raises:
        InputError: the space is wrong, or empty.
    """
    spec = recipe.search or SearchSpec()
    entries = search.automatic(samples) if spec.space == "auto" else spec.space
    found = search.read(list(entries))
    problems = found if isinstance(found, list) else found.problems()
    if problems or isinstance(found, list):
        raise InputError(problems)
    return found


def limits_of(recipe: Recipe) -> scoring.Constraints:
    """The constraints that every trial is judged by, and every candidate beside them."""
    return scoring.Constraints.from_spec(recipe.score, (recipe.search or SearchSpec()).limits)


def first(trials: Trials) -> list[Planned]:
    """What is tried before the sampler decides: the recipe's own candidates, as far as the space
    holds them; in the automatic space then what its techniques propose."""
    planned = []
    for name, entries in trials.recipe.candidates.items():
        parameters = trials.space.encode(entries)
        if parameters is None:
            trials.work.say(f"candidate {name} lies outside the space: compared at the end")
        else:
            planned.append(Planned(name, parameters))
    if trials.recipe.search and trials.recipe.search.space == "auto":
        planned += [Planned("", parameters) for parameters in _starts(trials)]
    known = {json.dumps(p.parameters, sort_keys=True): p for p in reversed(planned)}
    return [p for p in planned if known[json.dumps(p.parameters, sort_keys=True)] is p]


def _starts(trials: Trials) -> list[Mapping[str, Any]]:
    """Starting points by what they may bring for an epoch of training, after those the ones that
    break a limit before it; those that this network cannot take are left out. To find out takes
    at most a tenth of the search's time, or little more."""
    found, now = [], time.monotonic()
    enough = now + (trials.end - now) / 10
    for entries in search.starts(trials.task.sizes["train"]):
        parameters, chain = trials.space.encode(entries), techniques.chain(entries)
        if parameters is None:
            continue
        try:
            with trials.timing_lock.working():
                bound = trials.bound(chain) if sizes.known(chain) else None
                asked = time.monotonic() < enough
                hindered = asked and trials.hindrance(chain) is not None
        except NetzipError:
            continue
        except Exception:  # noqa: BLE001 (anyone's code: its trial will say what)
            bound, hindered = None, False
        epochs = sum(technique.training_epochs for technique in chain)
        found.append((hindered, -(bound or 0.0) / (1 + epochs), parameters))
    return [parameters for *_, parameters in sorted(found, key=lambda f: f[:2])]
