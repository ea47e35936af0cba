"""The registry of techniques: names, chains, bounds, the context, the sealed test split."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netzip_mlflow import edits, techniques
from netzip_mlflow.errors import InputError, SplitSealed
from netzip_mlflow.runs import candidates
from netzip_mlflow.tasks.classification import Classification
from netzip_mlflow.techniques import TABLE, Bounds, Context, Traits, parameter
from netzip_mlflow.twin import Twin

NAMES = sorted(TABLE)


def _bounds(name: str) -> dict[str, Bounds]:
    return {f.name: f.metadata["bounds"] for f in dataclasses.fields(techniques.find(name))}  # type: ignore[arg-type]


def test_importing_them_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from netzip_mlflow import techniques\n"
        "assert len(techniques.names()) >= 6\n"
        "print(sorted({'torch', 'mlflow', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


# --- the test split -------------------------------------------------------------------------


@pytest.mark.parametrize("final", [False, True])
def test_a_technique_cannot_open_the_test_split(final: bool, twin: Twin, context: Context) -> None:
    chain = techniques.chain([{"own_techniques:peek": {"final": final}}])
    with pytest.raises(SplitSealed, match="the test split is for the final evaluation only"):
        candidates.walk(MagicMock(), chain, twin, context)
    assert context.task.split("test", final=True), "the seal is off again"


# --- registry, chains, labels ---------------------------------------------------------------


def test_names_lists_the_table_in_order() -> None:
    assert list(techniques.names())[: len(TABLE)] == list(TABLE)


def test_the_known_techniques_and_their_parameters(golden) -> None:
    lines = []
    for name in TABLE:
        traits = techniques.find(name).traits
        lines.append(f"{name}: {traits.family}, {traits.kind}")
        made = techniques.find(name)()
        lines += [f"  {k} = {getattr(made, k)!r}: {b}" for k, b in _bounds(name).items()]
    golden("techniques.txt", "\n".join(lines) + "\n")


def test_an_installed_technique_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("low_rank", "own_techniques:Factorise", edits.ENTRY_POINTS)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    assert "low_rank" in techniques.names()
    assert techniques.find("low_rank").__name__ == "Factorise"
    assert techniques.chain([{"low_rank": {"rank": 3}}])[0].label() == "factorise(3)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ptqq", "unknown technique 'ptqq'; allowed: ptq, .*or module:function .*mean 'ptq'"),
        ("own_techniques:dampp", "has no function 'dampp'; allowed: .*did you mean 'damp'"),
        ("own_technique:damp", "own_technique cannot be imported"),
        ("own_techniques:", "'own_techniques:'; allowed: module:function"),
        (
            "own_techniques:Loose",
            r"it lacks name, ratio: parameter\(\.\.\.\); allowed: a frozen data",
        ),
        ("pathlib:Path", "it lacks the base class Technique, traits, apply, @dataclass"),
    ],
)
def test_an_unknown_technique_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        techniques.find(name)
    (problem,) = techniques.check({"candidates": {"c": [{name: {}}]}})
    assert problem.where == "candidates.c[0]"
    assert re.search(message, str(problem))


def test_a_chain_is_made_with_its_parameters() -> None:
    entries = [{"prune_l1": {"ratio": 0.5}}, {"finetune": {"teacher": "baseline"}}, {"ptq": {}}]
    made = techniques.chain(entries)
    assert techniques.label(made) == "prune_l1(0.5)+finetune(teacher)+ptq(int8)"
    assert techniques.label([]) == "fp32"
    assert [t.traits.kind for t in made] == ["float", "float", "deploy"]


@pytest.mark.parametrize(
    ("order", "allowed"),
    [
        ("prune_l1 finetune ptq", True),
        ("prune_l1 prune_random", True),
        ("ptq", True),
        ("", True),
        ("ptq finetune", False),
        ("half ptq", False),
        ("prune_l1 ptq prune_l1", False),
        ("ptq half finetune", False),
    ],
)
def test_float_techniques_come_first_and_one_deploy_technique_last(
    order: str, allowed: bool
) -> None:
    entries: list[dict[str, dict[str, Any]]] = [{name: {}} for name in order.split()]
    problems = techniques.check({"candidates": {"c": entries}})
    assert (not problems) is allowed
    if not allowed:
        with pytest.raises(InputError, match="is a deploy technique and stands before"):
            techniques.chain(entries)


@given(
    st.lists(st.sampled_from(NAMES), max_size=5),
)
def test_the_order_rule_in_one_line(order: list[str]) -> None:
    problems = techniques.check({"candidates": {"c": [{n: {}} for n in order]}})
    traits = [techniques.find(n).traits for n in order]
    wrong = "deploy" in [t.kind for t in traits[:-1]]
    together = {("binarise", "qat"), ("qat", "binarise"), ("binarise", "binarise")}
    for position, earlier in enumerate(traits):
        for name, later in zip(order[position + 1 :], traits[position + 1 :], strict=True):
            if earlier.stage == later.stage == "grid":
                wrong |= (order[position], name) not in together
            wrong |= earlier.stage == "sparsity" and later.stage == "structure"
            moves = later.kind == "float" and later.stage != "grid"
            drops = later.kind == "deploy" and not later.reads_grids
            wrong |= earlier.stage == "grid" and (moves or drops)
    assert bool(problems) == wrong


@pytest.mark.parametrize(
    ("order", "place", "message"),
    [
        ("qat finetune", 1, "finetune would move the weights off .* allowed: finetune before qat"),
        ("binarise prune_l1 ptq", 1, "prune_l1 would move the weights off"),
        ("qat half", 1, "half would not store the values .* allowed: ptq, or no deploy technique"),
        ("binarise qat dynamic_int8", 2, "dynamic_int8 would not store the values"),
        ("share_kernels qat", 1, "qat would put layers on other values than share_kernels has"),
        ("qat qat", 1, "qat would put .* allowed: before qat: binarise"),
        ("binarise share_kernels", 1, "before share_kernels: no technique of that kind"),
    ],
)
def test_nothing_undoes_a_grid(order: str, place: int, message: str) -> None:
    problems = techniques.check({"candidates": {"c": [{n: {}} for n in order.split()]}})
    assert problems[0].where == f"candidates.c[{place}]"
    assert re.search(message, str(problems[0]))


@pytest.mark.parametrize(
    ("entries", "where"),
    [
        ([{"qat": {"bits": 8}}, {"ptq": {"bits": 2, "edges": 2}}], ["bits", "edges"]),
        ([{"share_kernels": {}}, {"ptq": {"max_drop": 1.0, "bits": 4}}], ["bits", "max_drop"]),
        ([{"qat": {}}, {"ptq": {"calibration": "entropy"}}], []),
        ([{"binarise": {"layers": "conv2"}}, {"ptq": {"bits": 4}}], []),
    ],
)
def test_ptq_cannot_choose_what_a_grid_has_decided(
    entries: list[dict[str, dict[str, Any]]], where: list[str]
) -> None:
    problems = techniques.check({"candidates": {"c": entries}})
    assert [p.where for p in problems] == [f"candidates.c[1].ptq.{key}" for key in where]


@pytest.mark.parametrize(
    ("name", "given", "wrong"),
    [
        ("prune_l1", {"epochs": 5, "teacher": "baseline"}, {"epochs", "teacher"}),
        ("prune_l1", {"steps": 2, "epochs": 5, "teacher": "baseline"}, set()),
        ("prune_channels", {"lr": 0.1}, {"lr"}),
        ("prune_channels", {"lr": 0.1, "epochs": 1}, set()),
        ("finetune", {"temperature": 9.0, "alpha": 0.2}, {"temperature", "alpha"}),
        ("finetune", {"temperature": 9.0, "teacher": "baseline"}, set()),
        ("finetune", {"views": 4}, {"views"}),
        ("distil", {"views": 4}, {"views"}),
        ("distil", {"views": 4, "flip": True}, set()),
        ("qat", {"budget": 6.0}, {"wide"}),
        ("qat", {"budget": 6.0, "wide": 8}, set()),
        ("ptq", {"max_drop": 1.0}, {"wide"}),
        ("ptq", {"max_drop": 1.0, "edges": 4}, set()),
        ("ptq", {"budget": 4.0, "bits": 4, "wide": 4}, {"wide"}),
    ],
)
def test_a_parameter_that_would_not_be_read_is_refused(
    name: str, given: dict[str, Any], wrong: set[str]
) -> None:
    problems = techniques.check({"candidates": {"c": [{name: given}]}})
    assert {p.where for p in problems} == {f"candidates.c[0].{name}.{key}" for key in wrong}


@pytest.mark.parametrize(
    ("order", "label"),
    [
        ("qat", "qat(int4)+ptq(int8)"),
        ("binarise qat", "binarise+qat(int4)+ptq(int8)"),
        ("qat ptq", "qat(int4)+ptq(int8)"),
        ("finetune", "finetune"),
    ],
)
def test_a_grid_is_stored_by_ptq(order: str, label: str) -> None:
    assert techniques.label(techniques.chain([{n: {}} for n in order.split()])) == label


def test_malformed_candidates_are_left_to_the_schema() -> None:
    for candidates_ in (None, 3, [], {"c": 3}, {"c": [3]}, {"c": [{"ptq": 3}]}):
        assert techniques.check({"candidates": candidates_}) == []


# --- bounds ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (Bounds(int, low=1, high=9), "an integer from 1 to 9"),
        (Bounds(float, low=0.5), "a number >= 0.5"),
        (Bounds(float), "a number"),
        (Bounds(float, high=0.5), "a number <= 0.5"),
        (Bounds(bool), "true | false"),
        (Bounds(str, optional=True), "a string | null"),
        (Bounds(str, choices=("a", "b"), optional=True), "a | b | null"),
    ],
)
def test_bounds_say_what_they_allow(bounds: Bounds, text: str) -> None:
    assert str(bounds) == text


@given(
    value=st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=2),
    low=st.floats(-10, 0),
    high=st.floats(0, 10),
)
def test_a_range_admits_the_numbers_in_it_and_nothing_else(
    value: Any, low: float, high: float
) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    expected = number and low <= value <= high
    assert Bounds(float, low, high).admits(value) == expected
    integral = type(value) is int and low <= value <= high
    assert Bounds(int, low, high).admits(value) == integral
    assert Bounds(float, low, high, optional=True).admits(value) == (expected or value is None)


def test_a_choice_is_no_look_alike() -> None:
    assert Bounds(int, choices=(1, 2)).admits(1)
    assert not Bounds(int, choices=(1, 2)).admits(True)
    assert not Bounds(int, choices=(1, 2)).admits(1.0)


def test_a_parameter_carries_default_and_bounds() -> None:
    @dataclasses.dataclass(frozen=True)
    class Sample:
        ratio: float = parameter(0.3, "share", low=0.0, high=0.99)
        name: str | None = parameter(None, "a name", kind=str)

    ratio, name = dataclasses.fields(Sample)
    assert Sample().ratio == 0.3
    assert ratio.metadata["bounds"] == Bounds(float, 0.0, 0.99, help="share")
    assert name.metadata["bounds"] == Bounds(str, optional=True, help="a name")


# --- context --------------------------------------------------------------------------------


def test_a_context_of_a_task(task: Classification, twin: Twin) -> None:
    made = Context.of(task, twin, seed=5, threads=3)
    assert made.train is task.split("train")
    assert made.calibration is task.split("calibration")
    assert (made.teacher, made.seed, made.threads) == (twin, 5, 3)
    assert made.validate(twin.network()) == task.validate(twin.network())
    assert Context.of(task).teacher is None
    assert not any("test" in str(v) for v in (made.train.name, made.calibration.name))


def test_a_context_of_a_network_for_other_images(task: Classification, twin: Twin) -> None:
    """Whoever calls from Python learns it before calibration or training."""
    wide = twin.replace(input=dataclasses.replace(twin.input, shape=(3, 16, 16)))
    says = r"teacher: the network takes samples of \(3, 16, 16\); allowed: \(3, 12, 12\)"
    with pytest.raises(InputError, match=says):
        Context.of(task, wide)


def test_traits_hold_what_the_lists_show() -> None:
    made = Traits("own", "float", "a summary")
    assert (made.needs_calibration, made.needs_training, made.stage) == (False, False, "weights")
