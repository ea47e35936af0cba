"""A user's own techniques: functions, and classes that change the structure."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from netzip_mlflow import techniques
from netzip_mlflow.cache import timed
from netzip_mlflow.deployable import Deployable
from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.metrics import operations
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.twin import Twin

CODE = ["tiny_networks:tiny", "own_techniques:Factorise", "own_techniques:Forgetful"]


def _chain(*entries: tuple[str, dict]) -> tuple[techniques.Technique, ...]:
    return techniques.chain([{f"own_techniques:{name}": given} for name, given in entries])


def test_a_function_is_a_technique(twin: Twin, context: Context) -> None:
    (damp,) = _chain(("damp", {"factor": 0.5}))
    made = damp.apply(twin, context)
    assert isinstance(made, Twin)
    weight = twin.model.get_parameter("linear.weight")
    assert torch.equal(made.model.get_parameter("linear.weight"), weight * 0.5)
    assert made.chain == ("damp",)
    assert damp.traits.summary == "Scale the last layer."
    assert (damp.traits.family, damp.traits.kind) == ("own", "float")


def test_it_gets_a_copy(twin: Twin, context: Context) -> None:
    before = twin.digest()
    _chain(("damp", {"factor": 0.0}))[0].apply(twin, context)
    assert twin.digest() == before


def test_a_function_may_end_a_chain(twin: Twin, context: Context, baseline: Deployable) -> None:
    damp, as_is = _chain(("damp", {"factor": 1.0}), ("as_is", {}))
    assert as_is.traits.kind == "deploy"
    made = as_is.apply(twin, context)
    assert isinstance(made, Deployable)
    assert made.model.SerializeToString() == baseline.model.SerializeToString()
    with pytest.raises(InputError, match="own_techniques:as_is is a deploy technique and stands"):
        _chain(("as_is", {}), ("damp", {"factor": 1.0}))
    assert techniques.label([damp, as_is]) == "damp+as_is"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "own_techniques:nothing must return a Twin, returned NoneType"),
        ("nothing_deployed", "own_techniques:nothing_deployed must return a Deployable, .* NoneTy"),
    ],
)
def test_it_must_return_what_its_kind_says(
    name: str, message: str, twin: Twin, context: Context
) -> None:
    with pytest.raises(NetzipError, match=message):
        _chain((name, {}))[0].apply(twin, context)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"missing a required argument: 'factor'; allowed: damp\(twin.*factor"),
        ({"factor": 1, "bais": True}, "unexpected keyword argument 'bais'"),
        ({"factor": 1, "twin": 3}, "multiple values for argument 'twin'"),
    ],
)
def test_parameters_are_checked_before_any_work(given: dict, message: str) -> None:
    (problem,) = techniques.check({"candidates": {"c": [{"own_techniques:damp": given}]}})
    assert problem.where == "candidates.c[0].own_techniques:damp"
    assert re.search(message, str(problem))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"__post_init__": lambda _self: 1 / 0}, "ZeroDivisionError: division by zero"),
        ({"label": lambda _self: 1 / 0}, "ZeroDivisionError"),
        ({"label": lambda _self: sys.exit(0)}, "SystemExit: 0"),
        ({"label": lambda _self: 5}, "its label is 5; allowed: a text"),
        ({"problems": staticmethod(lambda _given, _where: 1 / 0)}, "ZeroDivisionError"),
    ],
)
def test_what_a_class_raises_is_said_when_the_recipe_is_read(
    monkeypatch: pytest.MonkeyPatch, change: dict, says: str
) -> None:
    """Once a run exists it would end the job, the other candidates too."""
    made = dataclasses.dataclass(frozen=True)(type("Made", (techniques.find("half"),), change))
    module = importlib.import_module("own_techniques")
    monkeypatch.setattr(module, "Made", made, raising=False)
    (problem,) = techniques.check({"candidates": {"c": [{"own_techniques:Made": {}}]}})
    assert problem.where == "candidates.c[0].own_techniques:Made"
    assert says in str(problem)


def test_a_technique_that_calls_for_an_exit_fails_alone(twin: Twin, context: Context) -> None:
    class Leaves:
        def label(self) -> str:
            return "leaves"

        def apply(self, _twin: Twin, _context: Context) -> Twin:
            raise SystemExit(0)

    with pytest.raises(NetzipError, match=r"leaves called for an exit \(0\)"):
        timed(Leaves(), twin, context)  # type: ignore[arg-type]


# --- structure ------------------------------------------------------------------------------


def test_a_structural_edit_is_replayed(
    twin: Twin, task: Classification, context: Context, tmp_path: Path
) -> None:
    (factorise,) = _chain(("Factorise", {"rank": 2}))
    made = factorise.apply(twin, context)
    assert isinstance(made, Twin)
    assert len(list(made.model.get_submodule("linear").children())) == 2
    made.save(tmp_path)
    again = Twin.load(tmp_path, CODE)
    assert again.digest() == made.digest()
    assert again.edits == made.edits
    images = torch.from_numpy(next(task.split("validation").batches(16))[0])
    with torch.no_grad():
        assert torch.equal(again.network()(images), made.network()(images))


def test_edits_are_replayed_in_order(twin: Twin, context: Context, tmp_path: Path) -> None:
    first = _chain(("Factorise", {"rank": 3}))[0].apply(twin, context)
    assert isinstance(first, Twin)
    pruned = techniques.chain([{"prune_l1": {"ratio": 0.5}}])[0].apply(first, context)
    assert isinstance(pruned, Twin)
    pruned.save(tmp_path)
    again = Twin.load(tmp_path, CODE)
    assert again.digest() == pruned.digest()
    assert set(again.masks) == {
        "conv1.weight",
        "conv2.weight",
        "linear.0.weight",
        "linear.1.weight",
    }
    assert again.chain == ("factorise(3)", "prune_l1(0.5)")


def test_the_graph_follows_the_structure(
    twin: Twin, context: Context, baseline: Deployable
) -> None:
    made = _chain(("Factorise", {"rank": 2}))[0].apply(twin, context)
    assert isinstance(made, Twin)
    shipped = deploy(made, context)
    names = [layer["name"] for layer in shipped.manifest["layers"]]
    assert names == ["conv1", "conv2", "linear.0", "linear.1"]
    before, after = (
        operations.totals(operations.layers(d.model))["macs"] for d in (baseline, shipped)
    )
    assert after - before == (16 * 2 + 2 * 4) - 16 * 4


def test_an_edit_that_cannot_be_replayed_is_refused(
    twin: Twin, context: Context, tmp_path: Path
) -> None:
    made = _chain(("Forgetful", {}))[0].apply(twin, context)
    assert isinstance(made, Twin)
    made.save(tmp_path)
    with pytest.raises(InputError, match="'own_techniques:Forgetful' cannot replay its edit"):
        Twin.load(tmp_path, CODE)


def test_two_structures_with_the_same_weights_are_two_exports(
    twin: Twin, task: Classification, context: Context
) -> None:
    """An activation has no weights: only the structure tells these two twins apart."""
    images, _ = next(task.split("validation").batches(16))
    scores = []
    for slope in (0.1, 0.9):
        made = _chain(("swap", {"slope": slope}))[0].apply(twin, context)
        assert isinstance(made, Twin)
        session = onnxruntime.InferenceSession(
            deploy(made, context).model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        scores.append(session.run(None, {"images": images})[0])
        with torch.no_grad():
            expected = made.network()(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(scores[-1], expected, atol=1e-4)
    assert np.abs(scores[0] - scores[1]).max() > 0.01
