"""What a search tries before its sampler decides."""

from __future__ import annotations

import contextlib
import math
from types import SimpleNamespace

from netzip_mlflow.recipe import Recipe
from netzip_mlflow.stages.search.objective import Stopped
from netzip_mlflow.stages.search.setup import first, space_of


def trials(recipe: Recipe, *, slow: set[str]) -> SimpleNamespace:
    """As much of `Trials` as its starting points need; chains with a technique of `slow` break a
    limit before their training. A longer chain has the higher bound."""

    def hindrance(chain):
        found = slow & {technique.label().split("(")[0] for technique in chain}
        return Stopped("before its training", "too slow", {}) if found else None

    return SimpleNamespace(
        recipe=recipe,
        task=SimpleNamespace(sizes={"train": 20_000}),
        space=space_of(recipe, 20_000),
        timing_lock=SimpleNamespace(working=contextlib.nullcontext),
        end=math.inf,
        bound=len,
        hindrance=hindrance,
    )


def test_starting_points_that_break_a_limit_before_their_training_come_last():
    recipe = Recipe.model_validate(
        {
            "name": "mine",
            "data": {"name": "digits"},
            "model": {"name": "lenet5"},
            "train": {"epochs": 1},
            "search": {"space": "auto"},
        }
    )
    free = [planned.parameters for planned in first(trials(recipe, slow=set()))]
    held = [planned.parameters for planned in first(trials(recipe, slow={"qat"}))]
    slow = [parameters for parameters in free if "qat" in parameters.values()]
    assert 0 < len(slow) < len(free)
    assert free[-len(slow) :] != slow, "else this shows nothing"
    assert held == [parameters for parameters in free if parameters not in slow] + slow
