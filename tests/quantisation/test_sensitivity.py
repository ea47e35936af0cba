"""Damage against scipy, and how a budget is spent against every other way of spending it."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scipy import stats

from netzip_mlflow.quantisation.sensitivity import damage, mean_bits, ranked, widened
from netzip_mlflow.tasks.classification import Classification

BITS = {"int8": 8, "int4": 4, "int3": 8 / 3, "int2": 2, "ternary": 1.6}


def _two_layers(first: np.ndarray, second: np.ndarray) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "one"], ["middle"]),
        helper.make_node("Relu", ["middle"], ["positive"]),
        helper.make_node("MatMul", ["positive", "two"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("n", 1, 2, 3))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("n", 4))],
        [numpy_helper.from_array(first, "one"), numpy_helper.from_array(second, "two")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _scores(images: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    middle = images.reshape(len(images), -1).astype(np.float64) @ first
    return np.maximum(middle, 0) @ second


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def test_damage_is_the_mean_divergence_from_the_float_outputs(task: Classification) -> None:
    draw = np.random.default_rng(0)
    first, second = (draw.normal(0, 1, s).astype(np.float32) for s in ((6, 5), (5, 4)))
    images = draw.random((20, 1, 2, 3), np.float32)
    other = {"one": np.round(first), "two": np.round(second)}
    model = _two_layers(first, second)
    before, told = model.SerializeToString(), []
    found = damage(model, other, images, task.differ, lambda what, done: told.append((what, done)))
    exact = _softmax(_scores(images, first, second))
    expected = {
        "one": _softmax(_scores(images, other["one"], second)),
        "two": _softmax(_scores(images, first, other["two"])),
    }
    for name, changed in expected.items():
        divergence = stats.entropy(exact, changed, axis=1).mean()
        assert divergence > 0.01
        assert found[name] == pytest.approx(divergence, rel=1e-4)
    assert model.SerializeToString() == before
    assert told == [("sensitivity", 0.5), ("sensitivity", 1.0)]


def test_the_same_weights_do_no_damage(task: Classification) -> None:
    draw = np.random.default_rng(1)
    first, second = (draw.normal(0, 1, s).astype(np.float32) for s in ((6, 5), (5, 4)))
    images = draw.random((8, 1, 2, 3), np.float32)
    found = damage(_two_layers(first, second), {"one": first, "two": second}, images, task.differ)
    assert found == {"one": 0.0, "two": 0.0}


def test_large_scores_do_not_overflow(task: Classification) -> None:
    draw = np.random.default_rng(2)
    first, second = (draw.normal(0, 1e3, s).astype(np.float32) for s in ((6, 5), (5, 4)))
    images = draw.random((8, 1, 2, 3), np.float32)
    found = damage(_two_layers(first, second), {"two": -second}, images, task.differ)
    assert np.isfinite(found["two"])
    assert found["two"] > 1


def test_mean_bits_by_hand() -> None:
    plan = {"a": "int8", "b": "ternary", "c": "int3"}
    assert mean_bits({"a": 10, "b": 50, "c": 30}, plan) == pytest.approx((80 + 80 + 80) / 90)


def test_ranked_is_the_most_harmful_first_and_ties_by_name() -> None:
    assert list(ranked({"a": 0.1, "c": 0.5, "b": 0.5, "d": 0.0})) == ["b", "c", "a", "d"]


def test_widened_by_hand() -> None:
    sizes = {"edge": 10, "a": 100, "b": 50, "c": 50}
    harm = {"a": 1.0, "b": 0.9, "c": 0.1}  # a bit is worth 0.01, 0.018, 0.002
    others = {"edge": "int8"}
    least = (80 + 4 * 200) / 210

    def chosen(budget: float) -> list[str]:
        return widened(harm, sizes, "int4", "int8", budget, others)

    assert chosen(least) == []
    assert chosen(least + 4 * 50 / 210 - 1e-6) == []
    assert chosen(least + 4 * 50 / 210 + 1e-6) == ["b"]
    assert chosen(least + 4 * 149 / 210) == ["b", "c"], "a does not fit, c still does"
    assert chosen(least + 4 * 151 / 210) == ["b", "a"]
    assert chosen(8.0) == ["b", "a", "c"]


LAYERS = st.lists(
    st.tuples(st.integers(1, 1000), st.floats(0, 10, allow_subnormal=False)),
    min_size=1,
    max_size=6,
)


def _bits(sizes: dict[str, int], wide: set[str], narrow: str, others: dict[str, str]) -> float:
    each = {n: BITS[others.get(n) or ("int8" if n in wide else narrow)] for n in sizes}
    return sum(each[n] * sizes[n] for n in sizes) / sum(sizes.values())


@given(
    layers=LAYERS,
    narrow=st.sampled_from(["int4", "int3", "int2", "ternary"]),
    share=st.floats(0, 1),
    edge=st.integers(1, 200),
)
def test_a_budget_is_kept_and_used_up(
    layers: list[tuple[int, float]], narrow: str, share: float, edge: int
) -> None:
    sizes = {f"w{i}": size for i, (size, _) in enumerate(layers)} | {"edge": edge}
    harm = {f"w{i}": each for i, (_, each) in enumerate(layers)}
    others = {"edge": "int8"}
    least = _bits(sizes, set(), narrow, others)
    budget = least + share * (8 - least)
    wide = widened(harm, sizes, narrow, "int8", budget, others)
    assert len(set(wide)) == len(wide)
    assert set(wide) <= set(harm)
    assert _bits(sizes, set(wide), narrow, others) <= budget + 1e-9
    for left in set(harm) - set(wide):
        assert _bits(sizes, {*wide, left}, narrow, others) > budget - 1e-9, "there was room"


@given(
    harm=st.lists(st.integers(0, 1000), min_size=1, max_size=7, unique=True),
    count=st.integers(0, 7),
)
def test_of_layers_of_one_size_no_other_choice_saves_more(harm: list[int], count: int) -> None:
    names = {f"w{i}": float(each) for i, each in enumerate(harm)}
    sizes = dict.fromkeys(names, 10)
    budget = 4 + 4 * min(count, len(harm)) / len(harm) + 1e-6
    wide = widened(names, sizes, "int4", "int8", budget, {})
    fitting = (
        subset
        for n in range(len(harm) + 1)
        for subset in itertools.combinations(names, n)
        if _bits(sizes, set(subset), "int4", {}) <= budget
    )
    best = max(sum(names[n] for n in subset) for subset in fitting)
    assert sum(names[n] for n in wide) == best
