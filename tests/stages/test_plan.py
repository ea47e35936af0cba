"""The plan says what would happen, and nothing does."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import DataSpec, ModelSpec
from netzip_mlflow.stages.plan import Plan, plan


@pytest.fixture
def found(compressed, tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = plan(compressed.recipe)
    assert list(tmp_path.iterdir()) == [], "planning leaves nothing behind"
    return made


def test_a_step_for_everything_that_is_made(found):
    steps = [step for step, _ in found.steps]
    assert any(step.startswith("train lenet5, 2 epochs") for step in steps)
    made = [s for s in steps if s.split(":")[0] in {"int8", "broken", "chain"}]
    assert made == [
        "int8: ptq(int8)",
        "broken: broken",
        "chain: prune_l1(0.3)+finetune(teacher)+ptq(int8)",
    ]
    assert "time 4 models together, at most" in steps


def test_seconds_add_up_and_training_costs(found, compressed):
    assert found.seconds == pytest.approx(sum(s for _, s in found.steps))
    assert all(s > 0 for _, s in found.steps)
    cost = dict(found.steps)
    by_name = {step.split(":")[0]: seconds for step, seconds in cost.items()}
    assert by_name["chain"] > by_name["int8"], "it fine-tunes"


def test_for_people_and_for_machines(found):
    text, given = found.as_text(), found.as_object()
    assert text.startswith("small-digits: about ")
    assert all(step in text for step, _ in found.steps)
    assert given["name"] == "small-digits"
    assert [s["step"] for s in given["steps"]] == [step for step, _ in found.steps]
    assert set(given) == {"name", "steps", "seconds", "missing"}
    assert given["missing"] == []
    assert "not here" not in text


def test_only_some_candidates(compressed):
    steps = [step for step, _ in plan(compressed.recipe, ("int8",)).steps]
    assert "time 2 models together, at most" in steps
    with pytest.raises(InputError, match="'int9' is no candidate"):
        plan(compressed.recipe, ("int9",))


def test_further_runtimes_are_a_step(compressed):
    measure = compressed.recipe.measure.model_copy(
        update={"runtimes": ("onnxruntime", "reference")}
    )
    steps = plan(compressed.recipe.model_copy(update={"measure": measure})).steps
    assert [step for step, _ in steps if "reference" in step] == ["run them in reference too"]


def test_training_between_prunings_costs(compressed):
    given = {"one": {"steps": 1}, "three": {"steps": 3, "epochs": 50}}
    chains = {name: ({"prune_l1": parameters},) for name, parameters in given.items()}
    cost = dict(plan(compressed.recipe.model_copy(update={"candidates": chains})).steps)
    assert cost["three: prune_l1(0.3, 3 steps)"] > cost["one: prune_l1(0.3)"]


def test_without_the_data_it_does_not_pretend_to_know_how_long(compressed, tmp_path):
    absent = DataSpec(name="npz", path=str(tmp_path / "none.npz"))
    found = plan(compressed.recipe.model_copy(update={"data": absent}))
    here = plan(compressed.recipe)
    assert [step for step, _ in found.steps] == [step for step, _ in here.steps]
    known = [step for step, seconds in found.steps if not math.isnan(seconds)]
    assert known == [
        "start, read data",
        "time 4 models together, at most",
        "compare, report, views",
    ]
    given = json.loads(json.dumps(found.as_object(), allow_nan=False))
    assert given["seconds"] is None
    assert {s["step"] for s in given["steps"] if s["seconds"] is not None} == set(known)
    (what,) = given["missing"]
    assert what == f"data.path: no such file: {absent.path}; allowed: an existing file"
    head, second, *lines = found.as_text().splitlines()
    assert head == "small-digits: how long is unknown without the data"
    assert second == f"not here: {what}"
    assert "       ? s  int8: ptq(int8)" in lines


def test_random_weights_are_timed_where_the_trained_ones_are_not_here(compressed, tmp_path):
    absent = ModelSpec(name="lenet5", weights=str(tmp_path / "none.safetensors"))
    found = plan(compressed.recipe.model_copy(update={"model": absent}))
    assert np.isfinite(found.seconds)
    (what,) = found.missing
    assert what.startswith("model.weights: no such file")
    assert found.as_text().splitlines()[1] == f"not here: {what}"
