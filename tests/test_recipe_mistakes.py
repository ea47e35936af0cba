"""Mistakes in a recipe: each gets one line that says where, what, allowed; all at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netzip_mlflow import data, models, recipe, tasks, techniques
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import Recipe

GOOD = """
name: some-digits
data: {name: digits}
model: {name: resnet8}
train: {epochs: 2, lr: 0.1}
candidates:
  ptq: [ptq]
  chain: [{prune_l1: {ratio: 0.3}}, {finetune: {epochs: 2}}, half]
"""
CHECKS = (data.check, models.check, tasks.check, techniques.check)
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
Loads = Callable[..., Recipe]


def _messages(loads: Loads, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        loads(text, *overrides)
    assert caught.value.exit_status == 2
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems), "one line a problem"
    return lines


# --- mistakes -------------------------------------------------------------------------------


# what of GOOD is replaced, by what, and the one line that must come of it
MISTAKES = [
    (
        "epochs: 2, lr",
        "optimizer: adamw, momentum: 0.5, lr",
        "train: momentum is of .*: sgd; adamw",
    ),
    ("\ntrain", "\nscroe: {}\ntrain", "scroe: unknown key; allowed: name, task.*mean 'score'"),
    ("name: some-digits", "seed: 1", "name: is missing"),
    ("some-digits", "Some Digits", "name: 'Some Digits' is not allowed; allowed: .*pattern"),
    ("some-digits", "3", "name: 3 is not allowed; allowed: a valid string"),
    ("data: {name: digits}", "", "data: is missing"),
    ("{name: digits}", "{nam: digits}", "data.nam: unknown key.*did you mean 'name'"),
    ("{name: digits}", "{}", "data: exactly one of name, factory"),
    ("name: digits", "name: digit", "data.name: no data set.*'digit'.*mean 'digits'"),
    ("name: digits", "name: npz", "data.path: is missing"),
    ("name: digits", "name: digits, validation: 1.5", "data.validation: 1.5.*less than 1$"),
    ("name: digits", "name: digits, validation: 0", "data.validation: 0 .* equal to 1$"),
    ("name: digits", "name: digits, test: a", "data.test: 'a' .*a valid number"),
    ("name: digits", "name: digits, calibration: -1", "data.calibration: -1 .*equal to 1$"),
    (
        "name: digits",
        "name: digits, validation: {frist: 3}",
        "data.validation.frist: unknown key; allowed: first, count, fraction, of .*'first'",
    ),
    (
        "name: digits",
        "name: digits, validation: {first: 3, count: 3}",
        r"data.validation: exactly one of first, count, fraction; got \['first', 'count'\]",
    ),
    (
        "name: digits",
        "name: digits, duplicates: dorp",
        "data.duplicates: 'dorp' .*'error' or 'drop' .*did you mean 'drop'",
    ),
    ("name: resnet8", "name: resnet9", "model.name: no network.*did you mean 'resnet8'"),
    ("name: digits", f"name: npz, path: {'a' * 300}", "data.path: .* is no path: .*too long"),
    ("name: digits", 'name: npz, path: "a\\0b"', "not valid YAML: a text with a zero byte"),
    ("name: resnet8", "name: resnet8, weights: ~not-a-user/w.pt", "model.weights: .*is no path"),
    ("name: resnet8", "name: resnet8, std: [1]", "model: mean and std go together"),
    ("name: resnet8", "name: resnet8, mean: [0], std: [0]", r"model.std\[0\]: 0 .*than 0"),
    ("name: resnet8", "name: resnet8, uri: a", r"exactly one of .*; got \['name', 'uri'\]"),
    (
        "name: resnet8",
        "name: resnet8, weights: w.pkl",
        "model.weights: w.pkl is no weights file; allowed: .safetensors",
    ),
    ("train: {epochs: 2, lr: 0.1}", "", "a model without weights needs a train section"),
    ("lr: 0.1", "lr: '0.1'", "train.lr: '0.1' is not allowed; allowed: a valid number"),
    ("lr: 0.1", "lr: true", "train.lr: True is not allowed"),
    ("lr: 0.1", "lr: .inf", "train.lr: inf is not allowed; allowed: a finite number"),
    ("lr: 0.1", "lr: -1", "train.lr: -1 is not allowed; allowed: greater than 0"),
    ("epochs: 2,", "epochs: 2.0,", "train.epochs: 2.0 is not allowed; allowed: a valid integ"),
    ("lr: 0.1", "optimizer: sdg", "train.optimizer: 'sdg' .*did you mean 'sgd'"),
    ("lr: 0.1", "augment: {flip: 1}", "train.augment.flip: 1 .*a valid boolean"),
    ("lr: 0.1", "augment: {flop: 1}", "augment.flop: unknown key; allowed: flip, crop .*flip"),
    ("\n  ptq:", "\n  baseline:", "candidates.baseline: the name is reserved"),
    ("\n  ptq:", "\n  trial-0:", r"candidates.trial-0: the name is reserved; .* trial-<number>"),
    ("\n  ptq:", f"\n  {'p' * 101}:", "candidates.p*: a name of 101 characters; allowed: 100 at"),
    ("some-digits", "d" * 101, "name: 'd*' is not allowed; .* at most 100 characters"),
    ("\n  ptq:", "\n  A b:", "candidates.A b: not a candidate's name; allowed: letters a-z"),
    ("[ptq]", "[ptqq]", r"candidates.ptq\[0\]: unknown technique 'ptqq'.*did you mean 'ptq'"),
    ("[ptq]", "3", "candidates.ptq: 3 is not allowed"),
    ("[ptq]", "[3]", r"candidates.ptq\[0\]: 3 is not allowed"),
    ("[ptq]", "[{ptq: 3}]", r"candidates.ptq\[0\].ptq: 3 is not allowed"),
    ("[ptq]", "[{}]", r"candidates.ptq\[0\]: nothing given; allowed: one technique"),
    ("[ptq]", "[{ptq: {}, half: {}}]", "ptq, half given; allowed: one technique"),
    ("ratio: 0.3", "ratoi: 0.3", r"chain\[0\].prune_l1.ratoi: unknown key; .* mean 'ratio'"),
    ("ratio: 0.3", "ratio: 1", r"chain\[0\].prune_l1.ratio: 1 is not allowed.*0.0 to 0.99"),
    (
        "[ptq]",
        "[ptq, half]",
        r"candidates.ptq\[0\]: ptq is a deploy technique and stands before half; allowed: float",
    ),
    ("[ptq]", "[half, {finetune: {}}]", "half is a deploy technique and stands before finetu"),
    (
        "[ptq]",
        "[{'no_such_module:f': {}}]",
        r"candidates.ptq\[0\]: no_such_module cannot be imported",
    ),
    (
        "[ptq]",
        "[{'tiny_networks:tinny': {}}]",
        r"candidates.ptq\[0\]: tiny_networks has no function 'tinny'.*did you mean 'tiny'",
    ),
    ("\ntrain", "\ntask: [a]\ntrain", r"task: \['a'\] is not allowed; allowed: a valid string"),
    ("\ntrain", "\ntask: clasification\ntrain", "unknown task .*mean 'classification'"),
    ("\ntrain", "\nscore: {accuracy: topp1}\ntrain", "score.accuracy: 'topp1' .*'top1'"),
    ("\ntrain", "\nscore: {speed: chat}\ntrain", "score.speed: 'chat' .*did you mean 'chats'"),
    ("\ntrain", "\nscore: {weights: {Q: 1}}\ntrain", "weights.Q: unknown key; .* P, S, C, E"),
    (
        "\ntrain",
        "\nmeasure: {latency: {target: 2}}\ntrain",
        "measure.latency.target: 2 is not allowed; allowed: less than 1",
    ),
    ("\ntrain", "\nseed: 2147483648\ntrain", "seed: 2147483648 .*less than 2147483648"),
    ("\ntrain", "\nmodel: {name: lenet5}\ntrain", "not valid YAML: key 'model' is given twice"),
    ("lr: 0.1", "lr: 0.1, lr: 0.2", "not valid YAML: key 'lr' is given twice"),
    ("lr: 0.1", "lr: [", "is not valid YAML"),
    ("\ntrain", "\n? [1, 2]\n: 3\ntrain", "not valid YAML: a key must be a text"),
    ("\ntrain", "\n2020-01-01: 3\ntrain", "2020-01-01: unknown key"),
    ("\ntrain", "\nx: &x [*x]\ntrain", "an alias that contains itself"),
    ("\ntrain", "\nx: !!python/object:os.system {}\ntrain", "is not valid YAML"),
    ("\nname", "\n- name", "is not valid YAML"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_one_mistake_gets_one_message(loads: Loads, old: str, new: str, message: str) -> None:
    assert old in GOOD
    (line,) = _messages(loads, GOOD.replace(old, new, 1))
    assert re.search(message, line), line
    assert "r.yaml: " in line


def test_all_mistakes_are_said_at_once(loads: Loads) -> None:
    text = (
        GOOD.replace("digits}", "digit}")
        .replace("resnet8", "resnet9")
        .replace("epochs: 2,", "epoch: 2,")
        .replace("lr: 0.1", "lr: -1")
        .replace("[ptq]", "[half, ptqq]")
        .replace("ratio: 0.3", "ratoi: 3")
        + "score: {sped: 1}\n"
    )
    said = "\n".join(_messages(loads, text))
    for key in (
        "train.epoch",
        "train.lr",
        "data.name",
        "model.name",
        "candidates.ptq[1]",
        "candidates.chain[0].prune_l1.ratoi",
        "score.sped",
    ):
        assert said.count(f"r.yaml: {key}: ") == 1, key


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must be a mapping of keys, is NoneType"),
        ("[1, 2]", "must be a mapping of keys, is list"),
        ("just words", "must be a mapping of keys, is str"),
        ("\x00", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe(loads: Loads, content: str, message: str) -> None:
    (line,) = _messages(loads, content)
    assert message in line


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(b"\xff\xfe\xfa\xfb")
    with pytest.raises(InputError, match=r"r\.yaml: is not text in UTF-8: .* at byte 0"):
        recipe.load(file)
    with pytest.raises(InputError, match="cannot be read"):
        recipe.load(tmp_path)


def test_a_missing_file_names_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").touch()
    with pytest.raises(InputError) as caught:
        recipe.load(tmp_path / "digit.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/digit.yaml: no such file; allowed: the recipes there: digits.yaml "
        "(did you mean 'digits.yaml'?)"
    )
    with pytest.raises(InputError, match="no such file; allowed: an existing file"):
        recipe.load(tmp_path / "nowhere" / "digit.yaml")


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    pairs: Sequence[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        pairs = [*value.items()]
    elif isinstance(value, list):
        pairs = [*enumerate(value)]
    return [path, *(leaf for key, inner in pairs for leaf in _leaves(inner, (*path, key)))]


FULL = yaml.safe_load(GOOD) | {
    "task": "classification",
    "measure": {"threads": 1, "latency": {"target": 0.1}, "throughput": [1]},
    "score": {"accuracy": "top1", "weights": {"P": 1}},
    "seed": 1,
}


_texts = st.text(st.characters(codec="utf-8"), max_size=8)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(_leaves(FULL)), value=_values)
def test_whatever_stands_at_a_key_it_is_read_or_refused(
    tmp_path: Path, path: tuple[str | int, ...], value: Any
) -> None:
    raw = json.loads(json.dumps(FULL))
    if path:
        place = raw
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
    else:
        raw = value
    file = tmp_path / "fuzzed.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    refusal = f"{file}: refused"
    try:
        assert isinstance(recipe.load(file, (), CHECKS), Recipe)
    except InputError as error:
        refusal = str(error)
    assert refusal.startswith(f"{file}: ")
