"""The error tree: exit statuses, and messages that say where, what, allowed, hint."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow import errors
from netzip_mlflow.errors import InputError, NetzipError, Problem, did_you_mean


def test_the_docstring_is_the_tree() -> None:
    """Each line of the module's docstring is a class, its parent and its exit status."""
    lines = re.findall(r"^([│├└─ ]*)(\w+) +(\d)  ", errors.__doc__ or "", re.MULTILINE)
    told = {name: (len(indent) // 4, int(status)) for indent, name, status in lines}
    kinds = {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception)
    }
    assert told.keys() == kinds.keys()
    for name, (depth, status) in told.items():
        assert kinds[name].exit_status == status
        assert kinds[name].__mro__.index(NetzipError) == depth


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("train.lr", "is missing"), "train.lr: is missing"),
        (Problem("", "no such file"), "no such file"),
        (Problem("a", "b", "c, d"), "a: b; allowed: c, d"),
        (Problem("a", "b", "c, d", "did you mean 'c'?"), "a: b; allowed: c, d (did you mean 'c'?)"),
        (Problem("a", "b", hint="e"), "a: b (e)"),
    ],
)
def test_a_problem_in_words(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_an_input_error_says_every_problem() -> None:
    two = [Problem("a", "is missing"), Problem("b", "is wrong")]
    error = InputError(two, "r.yaml")
    assert str(error) == "r.yaml: a: is missing\nr.yaml: b: is wrong"
    assert error.problems == tuple(two)
    assert error.source == "r.yaml"


def test_an_input_error_of_a_text_or_one_problem() -> None:
    assert InputError("broken").problems == (Problem("", "broken"),)
    assert str(InputError("broken", "f")) == "f: broken"
    assert InputError(Problem("a", "b")).problems == (Problem("a", "b"),)
    assert str(InputError(iter([Problem("a", "b")]))) == "a: b"


@pytest.mark.parametrize(
    ("given_", "allowed", "hint"),
    [
        ("pqt", ["ptq", "half"], "did you mean 'ptq'?"),
        ("nothing like it", ["ptq", "half"], ""),
        ("ptq", [], ""),
    ],
)
def test_did_you_mean(given_: str, allowed: list[str], hint: str) -> None:
    assert did_you_mean(given_, allowed) == hint


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5, unique=True), st.data())
def test_what_is_allowed_is_its_own_best_hint(allowed: list[str], data: st.DataObject) -> None:
    word = data.draw(st.sampled_from(allowed))
    assert did_you_mean(word, allowed) == f"did you mean {word!r}?"


def test_all_is_what_the_module_offers() -> None:
    public = {n for n, v in vars(errors).items() if getattr(v, "__module__", "") == errors.__name__}
    assert set(errors.__all__) == {n for n in public if not n.startswith("_")}
