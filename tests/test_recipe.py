"""The recipe: what it says, how it is overridden, and that every mistake gets one clear message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netzip_mlflow import data, models, recipe, tasks, techniques
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import Recipe, SplitRule

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


# --- what it says ---------------------------------------------------------------------------


def test_the_schema_is_the_known_one(golden: Callable[[str, str], None]) -> None:
    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if k not in {"title", "description"}}
        return [bare(v) for v in value] if isinstance(value, list) else value

    schema = bare(Recipe.model_json_schema())
    golden("recipe.schema.json", json.dumps(schema, indent=2) + "\n")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_the_recipes_that_ship_are_sound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NETZIP_DATA", "TINY_IMAGENET"):
        monkeypatch.setenv(name, "/surely/not/there")
    faults: list[str] = []
    try:
        assert len(recipe.load(path, (), CHECKS).candidates) >= 2
    except InputError as error:
        faults = [str(p) for p in error.problems]
    missing = ("no such file: /surely/not/there", "no such folder: /surely/not/there")
    assert [f for f in faults if not any(m in f for m in missing)] == []  # only data may be missing


def test_shorthand_is_written_out(loads: Loads) -> None:
    text = GOOD + "  one: half\n  single: {prune_l1: }\n"
    found = loads(text).candidates
    assert found["ptq"] == ({"ptq": {}},)
    assert found["chain"][2] == {"half": {}}
    assert found["one"] == ({"half": {}},)
    assert found["single"] == ({"prune_l1": {}},)


def test_relative_paths_start_at_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("images.npz", "w.safetensors"):
        (tmp_path / name).touch()
    text = GOOD.replace("{name: digits}", "{name: npz, path: ../images.npz}").replace(
        "{name: resnet8}", "{name: resnet8, weights: ../w.safetensors}"
    )
    (tmp_path / "sub" / "r.yaml").write_text(text)
    found = recipe.load(tmp_path / "sub" / "r.yaml", (), CHECKS)
    assert found.data.path == str(tmp_path.resolve() / "images.npz")
    assert found.model.weights == str(tmp_path.resolve() / "w.safetensors")


def test_absolute_paths_and_the_word_pretrained_stay(loads: Loads, tmp_path: Path) -> None:
    (tmp_path / "images.npz").touch()
    text = GOOD.replace("{name: digits}", f"{{name: npz, path: {tmp_path}/images.npz}}").replace(
        "{name: resnet8}", "{name: resnet18, weights: pretrained}"
    )
    found = loads(text)
    assert found.data.path == f"{tmp_path.resolve()}/images.npz"
    assert found.model.weights == "pretrained"


ELSEWHERE = GOOD.replace(
    "{name: digits}", "{name: npz, path: '${NETZIP_TEST_DATA}/x.npz'}"
).replace("{name: resnet8}", "{name: resnet8, weights: '${NETZIP_TEST_DATA}/w.pt'}")


def test_a_path_s_variable_stays_as_it_is_written(
    loads: Loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for name in ("here", "there"):
        place = tmp_path / name
        place.mkdir()
        for file in ("x.npz", "w.pt"):
            (place / file).touch()
        monkeypatch.setenv("NETZIP_TEST_DATA", str(place))
        found = loads(ELSEWHERE)
        assert found.data.path == "${NETZIP_TEST_DATA}/x.npz"
        assert found.model.weights == "${NETZIP_TEST_DATA}/w.pt"
        assert name not in found.to_yaml() + found.model_dump_json()
        assert recipe.locate(found.data.path, "data.path") == place / "x.npz"
        digests.add(found.digest())
    assert len(digests) == 1, "one recipe, wherever the data are"


def test_a_relative_variable_starts_at_the_recipe_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub" / "data").mkdir(parents=True)
    for file in ("x.npz", "w.pt"):
        (tmp_path / "sub" / "data" / file).touch()
    monkeypatch.setenv("NETZIP_TEST_DATA", "data")
    (tmp_path / "sub" / "r.yaml").write_text(ELSEWHERE)
    found = recipe.load(tmp_path / "sub" / "r.yaml", (), CHECKS)
    assert found.data.path == f"{tmp_path.resolve()}/sub/${{NETZIP_TEST_DATA}}/x.npz"
    located = recipe.locate(found.data.path, "data.path")
    assert located == tmp_path.resolve() / "sub" / "data" / "x.npz"
    (tmp_path / "again.yaml").write_text(found.to_yaml())  # as workers are given it
    assert recipe.load(tmp_path / "again.yaml", (), CHECKS) == found


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("{name: digits}", "{name: '${HOME}'}", "data.name"),
        (
            "{name: digits}",
            "{factory: 'a:b', arguments: {token: '${HOME}'}}",
            "data.arguments.token",
        ),
        ("ratio: 0.3", "ratio: '${HOME}'", "candidates.chain[0].prune_l1.ratio"),
    ],
)
def test_a_variable_anywhere_else_is_refused(loads: Loads, old: str, new: str, where: str) -> None:
    assert old in GOOD
    (line,) = _messages(loads, GOOD.replace(old, new))
    assert f"r.yaml: {where}: '${{HOME}}' names an environment variable" in line
    assert line.endswith("allowed: data.path, model.weights")
    assert str(Path.home()) not in line


def test_a_place_is_written_as_in_the_recipe_where_others_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETZIP_TEST_DATA", str(tmp_path / "d"))
    recipe.locate("${NETZIP_TEST_DATA}", "data.path")
    said = f"{tmp_path}/d/a.png: cannot be decoded, {tmp_path}/data and /x{tmp_path}/d stay"
    expected = (
        f"${{NETZIP_TEST_DATA}}/a.png: cannot be decoded, {tmp_path}/data and /x{tmp_path}/d stay"
    )
    assert recipe.as_written(said) == expected


@pytest.mark.parametrize("place", ["data", "/"])
def test_a_word_that_is_a_variable_s_place_too_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("PLACE", place)
    monkeypatch.setattr("netzip_mlflow.recipe.reading._located", {})
    file = tmp_path / "r.yaml"
    file.write_text("data: {name: npz, path: '${PLACE}'}")
    assert recipe.read(file)[1] == []
    said = "data: {path: data} / data.path"
    assert recipe.as_written(said) == said


def test_an_unset_variable_names_key_and_variable(
    loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NETZIP_NOT_SET", raising=False)
    text = GOOD.replace("{name: digits}", "{name: npz, path: '${NETZIP_NOT_SET}/x.npz'}")
    (line,) = _messages(loads, text)
    assert "r.yaml: data.path: " in line
    assert "NETZIP_NOT_SET, which is not set" in line


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1.e-3", ".1e-2", "+1e-3", "0.001"])
def test_every_way_to_write_a_number_is_read(loads: Loads, number: str) -> None:
    assert loads(GOOD.replace("lr: 0.1", f"lr: {number}")).train.lr == 0.001  # type: ignore[union-attr]


def test_merged_mappings_are_read(loads: Loads) -> None:
    text = GOOD.replace("{epochs: 2}}", "&f {epochs: 2}}").replace(
        "train: {epochs: 2, lr: 0.1}", "train: {<<: {epochs: 5, batch: 8}, epochs: 3}"
    )
    found = loads(text + "  again: [{finetune: {<<: *f, lr: 0.5}}]\n")
    assert (found.train.epochs, found.train.batch) == (3, 8)  # type: ignore[union-attr]
    assert found.candidates["again"] == ({"finetune": {"epochs": 2, "lr": 0.5}},)


def test_adamw_written_out_in_full_is_read_back(loads: Loads) -> None:
    """Its momentum, which has no part in it, stands there with its default."""
    found = loads(GOOD.replace("lr: 0.1", "optimizer: adamw"))
    assert "momentum: 0.9" in found.to_yaml()
    assert loads(found.to_yaml()) == found


def test_the_code_that_a_recipe_names(loads: Loads) -> None:
    text = GOOD.replace("{name: resnet8}", "{factory: 'tiny_networks:tiny'}")
    own = "  own: [{'own_techniques:damp': {factor: 0.5}}]\n"
    own += "  taught: [{distil: {student: 'tiny_networks:normed'}}]\n"
    space = "search: {space: [{one_of: [{'own_functions:shift': {steps: [1, 2]}}, {ptq: {}}]}]}\n"
    assert loads(GOOD).code() == frozenset()
    assert loads(text + own + space).code() == {
        "tiny_networks:tiny",
        "tiny_networks:normed",
        "own_techniques:damp",
        "own_functions:shift",
    }
    allowed = GOOD.replace("{name: resnet8}", "{uri: 'models:/m@best', allow: ['a.b:c']}")
    assert loads(allowed).code() == {"a.b:c"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{name: resnet8, allow: ['a:b']}", "model: allow is of uri"),
        ("{uri: 'models:/m', allow: ['os']}", r"model.allow\[0\]: 'os'; allowed: module:function"),
        ("{uri: 'models:/m', allow: 'a:b'}", "model.allow: "),
    ],
)
def test_what_a_twin_is_allowed_is_checked(loads: Loads, model: str, message: str) -> None:
    (line,) = _messages(loads, GOOD.replace("{name: resnet8}", model))
    assert re.search(message, line)


def test_digest_follows_content_alone(loads: Loads) -> None:
    assert loads(GOOD).digest() == loads("# a comment\n" + GOOD).digest()
    assert loads(GOOD).digest() == loads(GOOD + "seed: 0\n").digest()
    assert loads(GOOD).digest() != loads(GOOD + "seed: 1\n").digest()
    assert re.fullmatch("[0-9a-f]{16}", loads(GOOD).digest())


def test_a_recipe_cannot_be_changed(loads: Loads) -> None:
    with pytest.raises(Exception, match="frozen"):
        loads(GOOD).train.lr = 1.0  # type: ignore[union-attr, misc]


# --- round trips ----------------------------------------------------------------------------

_characters = st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0")
_words = st.text(_characters, max_size=8).filter(lambda t: "${" not in t)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=6,
)
_sizes = (
    st.floats(0.01, 0.99)
    | st.integers(1, 10**6)
    | st.builds(
        lambda key, size, of: SplitRule(**{key: size, "of": of}),
        st.sampled_from(["first", "count"]),
        st.integers(1, 10**6),
        st.sampled_from(["train", "test"]),
    )
)


@st.composite
def _recipes(draw: st.DrawFn) -> Recipe:
    arguments = st.dictionaries(_words, _values, max_size=3)
    name = draw(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,6}", fullmatch=True))
    return Recipe.model_validate(
        {
            "name": name,
            "seed": draw(st.integers(0, 2**31 - 1)),
            "data": {
                "factory": "a:b",
                "arguments": draw(arguments),
                "validation": draw(_sizes),
                "test": draw(st.none() | _sizes),
                "calibration": draw(st.floats(0.01, 0.99) | st.integers(1, 10**6)),
            },
            "model": {"factory": "a:b", "arguments": draw(arguments)},
            "train": {
                "lr": draw(st.floats(1e-300, 1e300)),
                "weight_decay": draw(st.floats(0, 1)),
            },
            "candidates": draw(
                st.dictionaries(
                    st.from_regex("[a-z0-9_-]{1,5}", fullmatch=True),
                    st.lists(st.dictionaries(_words, arguments, min_size=1, max_size=1)).map(tuple),
                    max_size=2,
                )
            ),
        }
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=_recipes())
def test_what_is_written_is_read_back(made: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "resolved.yaml"
    file.write_text(made.to_yaml(), encoding="utf-8")
    again = recipe.load(file)
    assert again == made
    assert again.digest() == made.digest()


@pytest.mark.parametrize("name", ["1e3", "1e-3", "007", "0x1f", "1_0", "1.5", "2020-01-01", "no"])
def test_names_that_look_like_numbers_survive(loads: Loads, tmp_path: Path, name: str) -> None:
    made = loads(GOOD.replace("some-digits", f"'{name}'"))
    assert loads(made.to_yaml()).name == name


# --- overrides ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("seed=3", lambda r: r.seed == 3),
        ("train.lr=1e-3", lambda r: r.train.lr == 0.001),
        ("train.augment={flip: true, crop: 2}", lambda r: r.train.augment.crop == 2),
        ("train.augment.flip=true", lambda r: r.train.augment.flip is True),
        ("measure.throughput=[1, 8]", lambda r: r.measure.throughput == (1, 8)),
        ("measure.latency.max_seconds=2", lambda r: r.measure.latency.max_seconds == 2.0),
        ("data.validation={first: 9, of: test}", lambda r: r.data.validation.first == 9),
        ("data.test=100", lambda r: r.data.test == 100),
        ("candidates.new=half", lambda r: r.candidates["new"] == ({"half": {}},)),
        (
            "candidates.new=[{prune_l1: {ratio: .5}}, ptq]",
            lambda r: r.candidates["new"] == ({"prune_l1": {"ratio": 0.5}}, {"ptq": {}}),
        ),
        (
            "candidates.chain.0.prune_l1.ratio=0.9",
            lambda r: r.candidates["chain"][0] == {"prune_l1": {"ratio": 0.9}},
        ),
        (
            "candidates.chain.2=ptq",
            lambda r: r.candidates["chain"][2] == {"ptq": {}},
        ),
        (  # the recipe writes [ptq], without parameters
            "candidates.ptq.0.ptq.calibration=entropy",
            lambda r: r.candidates["ptq"] == ({"ptq": {"calibration": "entropy"}},),
        ),
        (" train.epochs = 7", lambda r: r.train.epochs == 7),
        ("model.name=lenet5", lambda r: r.model.name == "lenet5"),
    ],
)
def test_an_override_reaches_its_key(
    loads: Loads, override: str, read: Callable[[Recipe], bool]
) -> None:
    assert not _reads(loads(GOOD), read), "the override must change something"
    assert read(loads(GOOD, override))


def _reads(made: Recipe, read: Callable[[Recipe], bool]) -> bool:
    try:
        return read(made)
    except (KeyError, AttributeError):
        return False


def test_the_last_override_wins(loads: Loads) -> None:
    assert loads(GOOD, "seed=1", "seed=2").seed == 2


def test_an_override_reaches_an_absent_section(loads: Loads) -> None:
    text = GOOD.replace("train: {epochs: 2, lr: 0.1}", "train:")
    assert loads(text, "train.epochs=3").train.epochs == 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "--set 'train.lr': must be key.path=value"),
        ("=3", "must be key.path=value"),
        ("train.lr=[1", "the value is not valid YAML"),
        ("name.x=1", "'x' lies below a plain value"),
        ("name.x.y=1", "'x' lies below a plain value"),
        ("candidates.chain.7=ptq", "'7' is no position in the list; allowed: 0 to 2"),
        ("candidates.chain.x.ptq=1", "'x' is no position in the list; allowed: 0 to 2"),
        ("train.epoch=3", "train.epoch: unknown key; allowed: epochs, .*did you mean 'epochs'"),
        ("trian.lr=3", "trian: unknown key; .*did you mean 'train'"),
        ("train.lr=fast", "train.lr: 'fast' is not allowed; allowed: a valid number"),
    ],
)
def test_a_wrong_override_says_so(loads: Loads, override: str, message: str) -> None:
    (line,) = _messages(loads, GOOD, override)
    assert re.search(message, line)


def test_what_cannot_be_read_is_told_with_all_else(
    loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NETZIP_NOT_SET", raising=False)
    text = GOOD.replace("{name: digits}", "{name: npz, path: '${NETZIP_NOT_SET}/x.npz'}")
    lines = _messages(loads, text, "train.lr", "name.x=1", "train.epochs=0", "seed=many")
    expected = ("--set 'train.lr'", "--set 'name.x=1'", "data.path", "train.epochs", "seed")
    assert len(lines) == len(expected)
    for line, place in zip(sorted(lines), sorted(expected), strict=True):
        assert f"r.yaml: {place}: " in line
