"""Hostile YAML, in a recipe and in `--set`: one line of one error each, within seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from netzip_mlflow import recipe
from netzip_mlflow.errors import InputError
from netzip_mlflow.recipe import syntax

GOOD = "name: a\ndata: {name: digits}\nmodel: {name: resnet8}\ntrain: {epochs: 1}\n"
LAUGHS = "x: &a [y, y, y, y, y, y, y, y, y]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
REFUSED = {
    "aliases that never end": (LAUGHS, "aliases expanded"),
    "aliases by merging": (LAUGHS.replace("[", "{<<: [").replace("]", "]}"), ""),
    "an alias of itself": ("x: &a [*a]", "contains itself"),
    "a mapping of itself": ("x: &a {b: *a}", "contains itself"),
    "a chain of aliases": (
        "z: &x0 [y]\n" + "".join(f"k{i}: &x{i} [*x{i - 1}]\n" for i in range(1, 60)),
        "nested over",
    ),
    "deep lists": (f"x: {'[' * 5000}{']' * 5000}", "nested over"),
    "deep lists, open": (f"x: {'[' * 5000}", "nested over"),
    "deep mappings": ("\n".join(f"{'  ' * depth}a:" for depth in range(400)), "nested over"),
    "a huge integer": (f"seed: {'9' * 5000}", "digits"),
    "a huge integer in another base": (f"seed: 0x{'f' * 5000}", "digits"),
    "a huge integer by minutes": (f"seed: 1{':1' * 5000}", "digits"),
    "a number beyond floats": ("x: 1e999", "larger than any number"),
    "a tag of Python's": ("x: !!python/object/apply:os.getcwd []", "python"),
    "a tag of its own": ("x: !own y", "!own"),
    "binary": ("name: !!binary aGk=", "binary"),
    "a set": ("x: !!set {a, b}", "set"),
    "pairs": ("x: !!pairs [a: b]", "pairs"),
    "a time that is none": ("x: !!timestamp soon", "timestamp"),
    "an integer that is none": ("x: !!int soon", "'soon' is not int"),
    "a number that is none": ("x: !!float soon", "'soon' is not float"),
    "an integer of nothing": ("x: !!int ''", "'' is not int"),
    "a number of nothing": ("x: !!float ''", "'' is not float"),
    "a truth that is none": ("x: !!bool soon", "'soon' is not bool"),
    "a list as a key": ("? [1, 2]\n: 3", "a key must be a text"),
    "one key in two kinds": ("x: {1: a, '1': b}", "'1' is given twice"),
    "merging of nonsense": ("x: {<<: 1}", "merging"),
    "half of a surrogate pair": ('x: "\\ud800"', "surrogate"),
    "a zero byte, escaped": ('x: "\\0"', "zero byte"),
    "a zero byte": ("x: a\0b", "#x0000"),
    "a tab": ("x:\n\t- y", "\\t"),
    "two documents": ("x: 1\n---\ny: 2", "single document"),
    "a long text": (f"x: {'y' * 200_000}", "over 100,000 characters"),
    "many values": (f"x: [{'1,' * 200_000}1]", "over 100,000 characters"),
    "a long file": (f"# {'y' * 2**20}", "larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=list(REFUSED))
def test_a_recipe_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(text.encode())
    with pytest.raises(InputError) as refused:
        recipe.load(file)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{file}: is ")
    assert says in line
    assert len(line) < 500


@pytest.mark.parametrize(
    ("text", "says"), [REFUSED[k] for k in REFUSED if "x: " in REFUSED[k][0]][:28]
)
def test_an_override_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(GOOD, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        recipe.load(file, [f"train.lr={text}"])
    (line,) = str(refused.value).splitlines()
    assert "--set" in line
    assert says in line


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (f"{'a.' * 5000}a=1", "a path of over 40 keys"),
        ("candidates.a.²=1", "'²' is no position"),
        (f"candidates.a.{'9' * 5000}=1", "is no position"),
        ("candidates.b.0=1", "none, it is empty"),
        ("data.\udcff=1", "must be key.path=value"),
        ("=1", "must be key.path=value"),
    ],
    ids=lambda value: str(value)[:20].encode("ascii", "replace").decode(),
)
def test_an_overrides_path(tmp_path: Path, override: str, says: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"{GOOD}candidates: {{a: [half], b: []}}\n", encoding="utf-8")
    with pytest.raises(InputError, match=says.replace("(", ".")) as refused:
        recipe.load(file, [override])
    assert len(str(refused.value)) < 10_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("since: 2020-01-01", {"since": "2020-01-01"}),
        ("2020-01-01: since", {"2020-01-01": "since"}),
        ("x: 2001-12-14t21:59:43.10-05:00", {"x": "2001-12-14t21:59:43.10-05:00"}),
        ("1: a\ntrue: b\n1e3: c", {"1": "a", "true": "b", "1e3": "c"}),
        ("x: !!str 5", {"x": "5"}),
        ("x: =", {"x": "="}),
        ("\ufeffx: 1\r\ny: 2\r\n", {"x": 1, "y": 2}),
        ("x: &a {k: 1, l: 2}\ny: {<<: *a, l: 3}", {"x": {"k": 1, "l": 2}, "y": {"k": 1, "l": 3}}),
        (f"x: {'9' * 200}", {"x": int("9" * 200)}),
        ("x: [1e-3, .inf, 1_000]", {"x": [0.001, float("inf"), 1000]}),
        ("", None),
    ],
)
def test_plain_values_are_read(text: str, value: object) -> None:
    assert syntax.parse(text) == value
    assert syntax.parse(text.encode()) == value


def test_a_merged_mapping_is_not_blamed_for_what_it_overrides() -> None:
    """It was: `k` stands in x.y once, and once in what is merged into it."""
    text = "z: &z {k: 1}\nx: {y: &a {<<: *z, k: 2}}\nb: {<<: *a, k: 3}"
    assert syntax.parse(text) == {"z": {"k": 1}, "x": {"y": {"k": 2}}, "b": {"k": 3}}


def test_an_override_of_one_alias_leaves_the_other(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    chains = "candidates:\n  a: [{prune_l1: &x {ratio: 0.5}}]\n  b: [{prune_l1: *x}]\n"
    file.write_text(GOOD + chains, encoding="utf-8")
    made = recipe.load(file, ["candidates.a.0.prune_l1.ratio=0.9"])
    assert made.candidates["a"][0]["prune_l1"] == {"ratio": 0.9}
    assert made.candidates["b"][0]["prune_l1"] == {"ratio": 0.5}
