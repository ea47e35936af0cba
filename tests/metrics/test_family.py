"""Metric families of a user's own: what is taken of them, and what is refused."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from netzip_mlflow.errors import InputError, NetzipError
from netzip_mlflow.metrics import Conditions, Figures, Metric
from netzip_mlflow.metrics.catalogue import FAMILIES, check, describe, families, listing
from netzip_mlflow.metrics.family import NEEDS, checked
from netzip_mlflow.recipe import MeasureSpec

HERE = Conditions(MeasureSpec(), 0, lambda _what, _done: None)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
def test_ours_say_what_they_need_and_what_they_give(family) -> None:
    assert family.needs in NEEDS
    assert all(describe(metric.key) for metric in family.metrics)


class Says:
    """A family that gives what it is told."""

    needs = "file"
    metrics = (Metric("graph/depth", "Depth", "layers in a row", interval=True),)

    def __init__(self, answer) -> None:
        self.answer = answer

    def measure(self, _models, _conditions):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_figures_with_a_record_are_taken_as_they_are() -> None:
    figures = Figures({"graph/depth": 3, "graph/depth_low": 2}, flags=("odd",))
    (taken,) = checked(Says([figures]), [None], HERE)
    assert taken.metrics == {"graph/depth": 3.0, "graph/depth_low": 2.0}
    assert (taken.flags, taken.absent) == (("odd",), {})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([Figures({"graph/width": 1.0})], "Says: gives graph/width, which none of its metrics"),
        ([Figures(absent={"size/zip_bytes": "?"})], "Says: gives size/zip_bytes"),
        ([], "Says: gives figures of 0 models, not of 1"),
        (NetzipError("the lamp is broken"), "Says: the lamp is broken"),
        (ZeroDivisionError("by design"), "Says: ZeroDivisionError: by design"),
        (5, "Says: TypeError"),
    ],
)
def test_a_family_that_fails_leaves_a_reason(answer, reason) -> None:
    (taken,) = checked(Says(answer), [None], HERE)
    assert taken.metrics == {}
    assert taken.absent["graph/depth"].startswith(reason)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_is_absent(value) -> None:
    (taken,) = checked(Says([Figures({"graph/depth": value})]), [None], HERE)
    assert taken.metrics == {}
    assert taken.absent == {"graph/depth": f"is {value}"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nodes", "unknown metric family 'nodes'"),
        ("own_metrics:None", "no function 'None'"),
        ("own_metrics:NotOne", "not a metric family, it lacks metrics, measure"),
        ("own_metrics:Greedy", "needs 'quantum'"),
        ("own_metrics:Thief", "size/disk_bytes is the key of another metric"),
        ("no_such_module:Nodes", "no_such_module cannot be imported"),
    ],
)
def test_what_is_not_a_family_is_refused_before_any_work(user_code, name, says) -> None:
    (problem,) = check({"measure": {"families": [name]}})
    assert says in str(problem)
    assert problem.where == "measure.families"
    with pytest.raises(InputError, match=r"measure\.families"):
        families([name])


def test_two_families_with_one_key_are_refused(user_code) -> None:
    (problem,) = check({"measure": {"families": ["own_metrics:Nodes", "own_metrics:Nodes"]}})
    assert "two of them give graph/nodes" in str(problem)


@pytest.mark.parametrize("measure", [None, 3, {"families": "x"}, {"families": [3]}])
def test_the_schema_says_what_is_not_a_list_of_names(measure) -> None:
    assert check({"measure": measure}) == []


def test_an_installed_family_is_listed_and_found_by_its_name(user_code, monkeypatch) -> None:
    points = [EntryPoint("queue", "own_metrics:Queue", "netzip_mlflow.metrics")]
    group = {"netzip_mlflow.metrics": points}
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: groups.get(group, []))
    groups = group
    assert listing()["graph/place"] == "1 = the smallest file; less is better"
    (family,) = families(["queue"])
    assert type(family).__name__ == "Queue"
