"""The contract that every technique of the table keeps.

Parametrised from `TABLE`: a new technique is under test before its author writes a test of it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from netzip_mlflow import edits, techniques
from netzip_mlflow.deployable import Deployable
from netzip_mlflow.errors import InputError
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import TABLE, Bounds, Context, Range
from netzip_mlflow.techniques.fp32 import deploy
from netzip_mlflow.techniques.trained import Trained
from netzip_mlflow.twin import Twin

NAMES = sorted(TABLE)


def _bounds(name: str) -> dict[str, Bounds]:
    return {f.name: f.metadata["bounds"] for f in dataclasses.fields(techniques.find(name))}  # type: ignore[arg-type]


PARAMETERS = [(name, key) for name in NAMES for key in _bounds(name)]
every_technique = pytest.mark.parametrize("name", NAMES)
every_parameter = pytest.mark.parametrize(("name", "key"), PARAMETERS)


@pytest.fixture(scope="module")
def results(twin: Twin, context: Context) -> dict[str, Twin | Deployable]:
    """What each technique with its defaults makes of the trained twin."""
    return {name: techniques.find(name)().apply(twin, context) for name in NAMES}


def _run(model: onnx.ModelProto | Path, images: np.ndarray) -> np.ndarray:
    """Scores by ONNX Runtime itself, without a line of ours."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    file = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def _images(task: Classification) -> tuple[np.ndarray, np.ndarray]:
    return next(task.split("test", final=True).batches(120))


def _digest(made: Twin | Deployable) -> str:
    return made.digest() if isinstance(made, Twin) else made.digest


# --- the contract ---------------------------------------------------------------------------


@every_technique
def test_it_returns_what_its_kind_says(
    name: str, twin: Twin, results: dict[str, Twin | Deployable]
) -> None:
    found, made = techniques.find(name), results[name]
    label = found().label()
    if found.traits.kind == "deploy":
        assert isinstance(made, Deployable)
        assert made.manifest["chain"] == [*twin.chain, label]
        assert made.manifest["classes"] == twin.facts["classes"]
    else:
        assert isinstance(made, Twin)
        assert made.chain == (*twin.chain, label)
        assert (made.input, made.outputs, made.facts) == (twin.input, twin.outputs, twin.facts)
        own = {p.data_ptr() for p in twin.model.parameters()}
        assert not own & {p.data_ptr() for p in made.model.parameters()}, "weights are shared"


@every_technique
def test_it_leaves_everything_else_as_it_was(
    name: str,
    twin: Twin,
    context: Context,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def world() -> dict[str, Any]:
        weights = twin.model.state_dict()
        return {
            "twin": twin.digest(),
            "layout": {k: v.stride() for k, v in weights.items()},
            "mode": [m.training for m in twin.model.modules()],
            "gradients": [(p.requires_grad, p.grad) for p in twin.model.parameters()],
            "hooks": [len(m._forward_pre_hooks) for m in twin.model.modules()],
            "splits": {n: context.task.split(n).digest for n in ("train", "validation")},
            "torch": torch.get_rng_state().tolist(),
            "numpy": str(np.random.get_state(legacy=False)),  # noqa: NPY002 (theirs, not ours)
            "python": random.getstate(),
            "threads": torch.get_num_threads(),
            "logging": (logging.getLogger().level, logging.root.manager.disable),
            "filters": list(warnings.filters),
        }

    before = world()
    techniques.find(name)().apply(twin, dataclasses.replace(context, teacher=twin))
    after = world()
    assert {k for k in before if before[k] != after[k]} == set()
    assert capfd.readouterr() == ("", ""), "stdout is for results, stderr for progress"
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@every_technique
def test_the_seed_alone_decides(
    name: str, twin: Twin, context: Context, results: dict[str, Twin | Deployable]
) -> None:
    torch.manual_seed(1234)
    np.random.seed(1234)  # noqa: NPY002 (a technique must not draw from the global generator)
    again = techniques.find(name)().apply(twin, context)
    assert _digest(again) == _digest(results[name])


@every_technique
def test_what_it_makes_ships_and_reloads(
    name: str,
    task: Classification,
    context: Context,
    baseline: Deployable,
    results: dict[str, Twin | Deployable],
    tmp_path: Path,
) -> None:
    made = results[name]
    images, labels = _images(task)
    shipped = deploy(made, context) if isinstance(made, Twin) else made
    onnx.checker.check_model(shipped.model, full_check=True)
    file = shipped.save(tmp_path)
    scores = _run(file, images)
    assert scores.shape == (120, 4)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, _run(shipped.model, images))
    one_by_one = np.concatenate([_run(file, images[i : i + 1]) for i in range(5)])
    # dynamic quantisation finds its ranges anew for each batch
    np.testing.assert_allclose(one_by_one, scores[:5], atol=0.1 if name == "dynamic_int8" else 1e-4)
    if isinstance(made, Twin):
        with torch.no_grad():
            expected = made.network()(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    else:  # stored and computed another way, it is still the same network
        same = (scores.argmax(1) == _run(baseline.model, images).argmax(1)).mean()
        assert same >= 0.9
        assert (scores.argmax(1) == labels).mean() > 0.8, "chance is 0.25"


@pytest.mark.parametrize("name", [n for n in NAMES if techniques.find(n).traits.kind == "float"])
def test_the_twin_it_makes_is_saved_and_rebuilt(
    name: str, task: Classification, results: dict[str, Twin | Deployable], tmp_path: Path
) -> None:
    made = results[name]
    assert isinstance(made, Twin)
    made.save(tmp_path)
    again = Twin.load(tmp_path, ["tiny_networks:tiny"])
    assert again.digest() == made.digest()
    images = torch.from_numpy(_images(task)[0])
    with torch.no_grad():
        assert torch.equal(again.network()(images), made.network()(images))


@pytest.mark.parametrize("name", [n for n in NAMES if techniques.find(n).traits.kind == "float"])
def test_the_structure_changes_only_as_its_stage_says(
    name: str, twin: Twin, results: dict[str, Twin | Deployable]
) -> None:
    """By an edit that it can replay, or by another architecture, with which edits start anew."""
    found, made = techniques.find(name), results[name]
    assert isinstance(made, Twin)
    if made.architecture != twin.architecture:
        assert found.traits.stage == "structure"
        assert (made.edits, made.masks, made.grids) == ((), {}, {})
    elif found.traits.stage == "structure":
        assert made.edits[:-1] == twin.edits
        assert made.edits[-1].technique == name
        assert name in edits.TABLE
    else:
        assert made.edits == twin.edits
        assert repr(made.model) == repr(twin.model)


class _Untouchable:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a technique whose traits deny it reads this data: {name}")


@every_technique
def test_it_reads_no_data_that_its_traits_deny(
    name: str, twin: Twin, context: Context, changed: Callable[..., Any]
) -> None:
    traits = techniques.find(name).traits
    denied: dict[str, Any] = {}
    if not traits.needs_training:
        denied["train"] = _Untouchable()
    if not traits.needs_calibration:
        denied["calibration"] = _Untouchable()
    if traits.kind == "deploy":
        denied["teacher"] = _Untouchable()
        denied["task"] = changed(context.task, validate=_Untouchable())
    techniques.find(name)().apply(twin, dataclasses.replace(context, **denied))


@every_technique
def test_its_description_is_complete(name: str) -> None:
    found = techniques.find(name)
    assert found.__name__ in __import__(found.__module__, fromlist=["*"]).__all__
    assert found.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert found.traits.summary
    assert found.traits.stage == "structure" or name not in edits.TABLE
    label = found().label()
    assert re.fullmatch(r"[a-z0-9_]+(\([^()]+\))?", label)
    assert label.split("(")[0] == name
    assert found.name == name, "run params are keyed by it"
    assert techniques.names()[name] == found.traits.summary
    assert all(b.help for b in _bounds(name).values())


@every_technique
def test_defaults_lie_within_bounds(name: str) -> None:
    made = techniques.find(name)()
    for key, bounds in _bounds(name).items():
        assert bounds.admits(getattr(made, key))


@every_parameter
def test_what_a_search_tries_lies_within_bounds(name: str, key: str) -> None:
    bounds = _bounds(name)[key]
    if isinstance(bounds.search, Range):
        assert bounds.type in (int, float)
        assert bounds.search.low < bounds.search.high
        assert bounds.admits(bounds.type(bounds.search.low))
        assert bounds.admits(bounds.type(bounds.search.high))
    elif bounds.search is not None:
        assert len(set(bounds.search)) == len(bounds.search) > 1
        assert all(bounds.admits(value) for value in bounds.search)


def _outside(bounds: Bounds) -> list[Any]:
    """Values of the wrong type, and values just outside the range or the choices."""
    values: list[Any] = ["surely none", [1], {"a": 1}]
    values += [] if bounds.optional else [None]
    if bounds.choices is not None:
        return [*values, *(str(c).upper() + "x" for c in bounds.choices), 1, True]
    if bounds.type is bool:
        return [*values, 0, 1, "true"]
    if bounds.type is str:
        return [*values[1:], 1, True]
    values += [True, "1", math.nan, math.inf, -math.inf]
    if bounds.type is int:
        values.append(1.5)
    step = 1 if bounds.type is int else 1e-9
    if bounds.low is not None:
        values += [bounds.low - step, bounds.low - 100]
    if bounds.high is not None:
        values += [bounds.high + step, bounds.high + 100]
    return values


def _inside(bounds: Bounds) -> list[Any]:
    values: list[Any] = [None] if bounds.optional else []
    if bounds.choices is not None:
        return [*values, *bounds.choices]
    if bounds.type is bool:
        return [*values, True, False]
    return [*values, *(bounds.type(v) for v in (bounds.low, bounds.high) if v is not None)]


@every_parameter
def test_values_outside_its_bounds_are_refused(name: str, key: str) -> None:
    bounds = _bounds(name)[key]
    for value in _outside(bounds):
        raw = {"candidates": {"c": [{name: {key: value}}]}}
        (problem,) = techniques.check(raw)
        assert problem.where == f"candidates.c[0].{name}.{key}"
        assert repr(value) in problem.what
        assert problem.allowed == str(bounds)
        with pytest.raises(InputError):
            techniques.chain([{name: {key: value}}])
        with pytest.raises(InputError, match=f"{name}.{key}"):
            techniques.find(name)(**{key: value})


# what must stand beside a parameter so that it counts
NEEDS: dict[tuple[str, str], dict[str, Any]] = {
    ("ptq", "percentile"): {"calibration": "percentile"},
    ("ptq", "budget"): {"bits": 4, "edges": 4},
    ("ptq", "wide"): {"bits": 2, "edges": 2, "budget": 6.0},
    ("ptq", "max_drop"): {"bits": "ternary", "edges": "ternary"},
    ("ptq", "correct_bias"): {"bits": 4},
    ("qat", "budget"): {"bits": 2, "edges": 2},
    ("qat", "wide"): {"bits": 2, "edges": 2, "budget": 6.0},
    ("qat", "weight_decay"): {"lr": 0.1},
    ("distil", "arguments"): {"student": "tiny_networks:tiny"},
    ("factorise", "energy"): {"method": "energy"},
}
NEEDS |= {(n, k): {"flip": True, "crop": 1} for n, k in PARAMETERS if k == "views"}
NEEDS |= {
    (n, k): {"teacher": "baseline"}
    for n, k in PARAMETERS
    if k in ("temperature", "alpha", "features") and "teacher" in _bounds(n)
}
# damaged between two steps, and trained for long enough there that training has something to gain
GRADUAL = {"ratio": 0.5, "steps": 2, "epochs": 6, "lr": 0.1}
NEEDS |= {
    (name, key): GRADUAL | NEEDS.get((name, key), {})
    for name, key in PARAMETERS
    if name in ("prune_l1", "prune_random") and key not in ("ratio", "scope", "keep")
}
NEEDS["prune_random", "epochs"] = GRADUAL | {"lr": 0.02, "batch": 16}
# a smaller case of what trains long, a longer one of what trains only on demand
SMALL: dict[str, dict[str, Any]] = {
    "distil": {"student": "tiny_networks:tiny", "epochs": 4},
    "prune_channels": {"epochs": 1},
}
NEEDS |= {
    (name, key): {"epochs": 1} | NEEDS.get((name, key), {})
    for name, key in PARAMETERS
    if name == "prune_channels" and key not in ("epochs", "ratio", "macs")
}
# another value, which no bounds can make up
OTHERS: dict[tuple[str, str], Any] = {
    ("ptq", "budget"): 6.0,
    ("ptq", "max_drop"): 0.0,
    ("qat", "budget"): 6.0,
    ("binarise", "layers"): "conv1, conv2",
    ("factorise", "layers"): "conv2",
    ("factorise", "keep"): "conv2",
    ("distil", "student"): "tiny_networks:tiny",
    ("distil", "arguments"): "{width: 4}",
    ("prune_channels", "macs"): 0.3,
    ("prune_channels", "keep"): "conv1",
    ("prune_l1", "keep"): "conv1",
    ("prune_random", "keep"): "conv*",
}
# needs two inner layers, the tiny network has one: tests/techniques/test_share_kernels.py
# and that a training's parameters are handed on is proved below, what they do in `finetune`
SHARED = {field.name for field in dataclasses.fields(Trained)}
TRAINED = [n for n in NAMES if issubclass(techniques.find(n), Trained)]
CHANGING = [
    (name, key)
    for name, key in PARAMETERS
    if (name, key) != ("share_kernels", "books")
    and (key not in SHARED or name == "finetune" or name not in TRAINED)
]


@every_parameter
def test_values_inside_its_bounds_are_taken(name: str, key: str) -> None:
    inside = _inside(_bounds(name)[key])
    if isinstance(OTHERS.get((name, key)), str):
        inside = [OTHERS[name, key], *inside]
    assert inside, "a parameter without bounds is no use to a search"
    for value in inside:
        beside = {} if (key, value) == ("steps", 1) else NEEDS.get((name, key), {})
        given_ = beside | {key: value}
        made = techniques.chain([{name: given_}])[0]  # a grid is followed by ptq
        assert getattr(made, key) == value


def _other(bounds: Bounds, default: Any) -> Any:
    """A value that is allowed and is not the default."""
    if bounds.choices is not None:
        return [c for c in bounds.choices if c != default][-1]
    if bounds.type is bool:
        return not default
    doubled = bounds.type(2 * default) or 1
    return doubled if bounds.admits(doubled) else bounds.low


def _damaged(twin: Twin) -> Twin:
    """With noise on its weights: training has something to gain, so it is sure to move."""
    noisy = twin.copy()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in noisy.model.parameters():
            if weight.ndim > 1:
                weight.add_(0.7 * weight.std() * torch.randn(weight.shape, generator=draw))
    return noisy


@pytest.mark.parametrize(("name", "key"), CHANGING)
def test_each_parameter_changes_the_result(
    name: str, key: str, twin: Twin, context: Context
) -> None:
    technique = techniques.find(name)
    origin = _damaged(twin) if issubclass(technique, Trained) else twin
    given_ = SMALL.get(name, {}) | NEEDS.get((name, key), {})
    plain = technique(**{k: v for k, v in given_.items() if k != key})
    own = (name, key) in OTHERS
    other = OTHERS[name, key] if own else _other(_bounds(name)[key], getattr(plain, key))
    changed = dataclasses.replace(plain, **{key: other})  # type: ignore[type-var]
    before, after = (t.apply(origin, context) for t in (plain, changed))
    if isinstance(before, Twin) and isinstance(after, Twin):
        one, two = before.model.state_dict(), after.model.state_dict()
        same = one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
        assert not same
    else:
        assert _digest(before) != _digest(after)


class _Handed(Exception):
    """A training was begun."""


@pytest.mark.parametrize("name", TRAINED)
def test_its_training_is_as_its_parameters_say(
    name: str, twin: Twin, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_twin: Any, **handed: Any) -> None:
        raise _Handed(handed)

    monkeypatch.setattr("netzip_mlflow.training.fit", fit)
    shared = {
        "epochs": 3, "lr": 0.02, "batch": 48, "optimizer": "adamw", "schedule": "onecycle",
        "weight_decay": 0.001, "flip": True, "crop": 2, "views": 5,
    }  # fmt: skip
    assert shared.keys() == SHARED
    steps = {"steps": 2} if name in ("prune_l1", "prune_random") else {}
    with pytest.raises(_Handed) as caught:
        techniques.find(name)(**shared, **steps).apply(twin, context)
    handed = caught.value.args[0]
    spec = handed["spec"]
    assert (spec.augment.flip, spec.augment.crop, handed["views"]) == (True, 2, 5)
    for key in SHARED - {"flip", "crop", "views"}:
        assert getattr(spec, key) == shared[key]
    assert handed["seed"] == context.seed + len(steps), "each step draws for itself"
    assert handed["threads"] == context.threads
