"""Whatever could change a result changes the key; what cannot be told is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from netzip_mlflow import techniques
from netzip_mlflow.cache import keys
from netzip_mlflow.cache.keys import Uncacheable
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import Context, Traits, parameter
from netzip_mlflow.techniques.distil import Distil
from netzip_mlflow.techniques.finetune import Finetune
from netzip_mlflow.techniques.prune_l1 import PruneL1
from netzip_mlflow.techniques.prune_random import PruneRandom
from netzip_mlflow.twin import Architecture, Edit, Twin

Given = tuple[Any, Twin, Context]
TECHNIQUE = Finetune(epochs=2)


def _key(given: Given) -> str:
    return keys.digest(keys.ingredients(*given))


def _other_weights(twin: Twin) -> Twin:
    made = twin.copy()
    with torch.no_grad():
        made.model.get_parameter("linear.bias")[0] += 1e-6
    return made


def _other_setting(twin: Twin) -> Twin:
    made = twin.copy()
    made.model.bn1.eps = 0.5  # type: ignore[union-attr]
    return made


def _other_forward(twin: Twin) -> Twin:
    made = twin.copy()
    made.model.register_forward_hook(lambda _module, _given, scores: scores * 2)
    return made


def _masked(twin: Twin) -> Twin:
    return twin.replace(masks={"linear.weight": torch.ones(4, 16, dtype=torch.bool)})


def _rolled(context: Context, split: str) -> Context:
    old = getattr(context, split)
    return replace(context, **{split: replace(old, targets=np.roll(old.targets, 1))})


def _other_validation(context: Context) -> Context:
    task = Classification.__new__(Classification)
    task.__dict__.update(context.task.__dict__)
    old = task._splits["validation"]
    task._splits = {**task._splits, "validation": replace(old, targets=np.roll(old.targets, 1))}
    return replace(context, task=task)


OTHER: dict[str, Callable[[Given], Given]] = {
    "technique": lambda g: (PruneL1(), g[1], g[2]),
    "parameter": lambda g: (replace(g[0], lr=0.011), g[1], g[2]),
    "weights": lambda g: (g[0], _other_weights(g[1]), g[2]),
    "setting": lambda g: (g[0], _other_setting(g[1]), g[2]),
    "forward": lambda g: (g[0], _other_forward(g[1]), g[2]),
    "masks": lambda g: (g[0], _masked(g[1]), g[2]),
    "chain": lambda g: (g[0], g[1].replace(chain=("damp",)), g[2]),
    "edits": lambda g: (g[0], g[1].replace(edits=(Edit("factorise", {"rank": 2}),)), g[2]),
    "train": lambda g: (g[0], g[1], _rolled(g[2], "train")),
    "calibration": lambda g: (g[0], g[1], _rolled(g[2], "calibration")),
    "validation": lambda g: (g[0], g[1], _other_validation(g[2])),
    "teacher": lambda g: (g[0], g[1], replace(g[2], teacher=_other_weights(g[1]))),
    "no teacher": lambda g: (g[0], g[1], replace(g[2], teacher=None)),
    "seed": lambda g: (g[0], g[1], replace(g[2], seed=1)),
    "threads": lambda g: (g[0], g[1], replace(g[2], threads=2)),
    "device": lambda g: (g[0], g[1], replace(g[2], device="mps")),
}


@pytest.mark.parametrize("what", OTHER)
def test_each_ingredient_changes_the_key(what: str, twin: Twin, context: Context) -> None:
    given = (TECHNIQUE, twin, context)
    assert _key(OTHER[what](given)) != _key(given)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("package_digest", "another"),
        ("_versions", {"torch": "99"}),
        ("_machine", {"cpu": "another"}),
    ],
)
def test_so_do_code_versions_and_machine(
    what: str, value: object, twin: Twin, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _key((TECHNIQUE, twin, context))
    monkeypatch.setattr(keys, what, lambda: value)
    assert _key((TECHNIQUE, twin, context)) != before


def test_so_does_the_source_of_the_network(
    twin: Twin, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _key((TECHNIQUE, twin, context))
    monkeypatch.setattr(keys, "source_digest", lambda _found: "edited")
    assert _key((TECHNIQUE, twin, context)) != before


def test_so_does_the_source_of_a_student(
    twin: Twin, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (Distil(student="tiny_networks:tiny", epochs=1), twin, context)
    monkeypatch.setattr(keys, "_network", lambda _twin: "the same")
    before = _key(given)
    monkeypatch.setattr(keys, "source_digest", lambda _found: "edited")
    assert _key(given) != before


def test_the_same_again_is_the_same_key(twin: Twin, context: Context) -> None:
    again = replace(context, progress=lambda _what, _done: None, log=lambda _k, _v, _s: None)
    keys_ = {
        _key((TECHNIQUE, twin, context)),
        _key((Finetune(epochs=2), twin.copy(), again)),
        _key((TECHNIQUE, twin.replace(model=twin.model), replace(context, teacher=twin.copy()))),
    }
    assert len(keys_) == 1
    torch.manual_seed(99)
    assert keys_ == {_key((TECHNIQUE, twin, context))}


def test_telling_the_key_changes_nothing(twin: Twin, context: Context) -> None:
    before = twin.digest(), torch.get_rng_state().tolist(), twin.model.training
    keys.ingredients(TECHNIQUE, twin, context)
    assert (twin.digest(), torch.get_rng_state().tolist(), twin.model.training) == before


def test_two_techniques_with_equal_parameters_differ(twin: Twin, context: Context) -> None:
    one, two = (_key((t(0.5), twin, context)) for t in (PruneL1, PruneRandom))
    assert one != two


def test_ingredients_are_json_and_name_the_versions(twin: Twin, context: Context) -> None:
    found = keys.ingredients(TECHNIQUE, twin, context)
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert {"python", "numpy", "torch", "onnx", "safetensors"} <= found["versions"].keys()
    assert all(found["versions"][name] for name in ("torch", "numpy", "python"))


def test_a_users_function_is_keyed_by_parameters(twin: Twin, context: Context) -> None:
    made = [
        _key((techniques.chain([{f"own_techniques:{name}": given}])[0], twin, context))
        for name, given in (
            ("damp", {"factor": 0.5}),
            ("damp", {"factor": 0.25}),
            ("damp", {"factor": 0.5, "bias": True}),
            ("settle", {"eps": 0.5}),
        )
    ]
    assert len(set(made)) == 4


# --- refused --------------------------------------------------------------------------------------


def test_plain_modules_are_refused(twin: Twin, context: Context) -> None:
    plain = twin.replace(architecture=None)
    for given in ((TECHNIQUE, plain, context), (TECHNIQUE, twin, replace(context, teacher=plain))):
        with pytest.raises(Uncacheable, match="plain module"):
            keys.ingredients(*given)


def test_a_class_made_in_a_function_is_refused(twin: Twin, context: Context) -> None:
    scale = 2.0

    @dataclass(frozen=True)
    class Scale:
        traits = Traits("own", "float", "scales")
        power: float = parameter(1.0, "of the scale")

        def label(self) -> str:
            return "scale"

        def apply(self, twin: Twin, context: Context) -> Twin:
            made = twin.copy()
            made.model.get_parameter("linear.weight").data.mul_(scale**self.power)
            return made

    with pytest.raises(Uncacheable, match="Scale has no file whose text determines it"):
        keys.ingredients(Scale(), twin, context)


def test_parameters_that_are_no_json_are_refused(twin: Twin, context: Context) -> None:
    (technique,) = techniques.chain([{"own_techniques:damp": {"factor": np.float32(0.5)}}])
    with pytest.raises(Uncacheable, match="a parameter cannot be written as JSON"):
        keys.ingredients(technique, twin, context)


def test_a_network_that_cannot_run_is_refused(twin: Twin, context: Context) -> None:
    broken = twin.copy()
    broken.model.linear = torch.nn.Linear(3, 4)
    with pytest.raises(Uncacheable, match="the network cannot be run"):
        keys.ingredients(TECHNIQUE, broken, context)


def test_an_unknown_factory_is_said(twin: Twin, context: Context) -> None:
    gone = twin.replace(architecture=Architecture("factory", "gone_module:net"))
    with pytest.raises(Exception, match="gone_module cannot be imported"):
        keys.ingredients(TECHNIQUE, gone, context)
