from __future__ import annotations

import re
import string
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from netzip_mlflow.report import plots, sections
from netzip_mlflow.report.html import LIMIT_BYTES, report
from netzip_mlflow.scoring import Basis, Choice

VOID = {"meta", "br", "hr", "link", "img", "input"}


class Checker(HTMLParser):
    """Collects texts and addresses, and checks that every element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.words, self.names, self.addresses, self.ids = [], [], set(), [], []

    def handle_starttag(self, name, attributes):
        self.names.add(name)
        for key, value in attributes:
            if key in ("src", "href", "xlink:href", "action", "data"):
                self.addresses.append(value)
            if key == "id":
                self.ids.append(value)
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.handle_starttag(name, attributes)
        if name not in VOID:
            self.open.pop()

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, words):
        self.words.append(words)


def read(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def written(frame, choice, **changes):
    options = {
        "title": "ResNet-20 on CIFAR-10",
        "constraint": "drop of top-1 at most 1 point",
        "basis": Basis().label(),
        "terms": "P,S,C",
        "machine": {"cpu": "A CPU", "threads": 1, "instruction_sets": ["avx2", "avx512_vnni"]},
        "recipe_yaml": "name: resnet20\n",
        "command": "netzip compress recipes/resnet20_cifar10.yaml",
    }
    return report(frame, best=choice, **(options | changes))


@pytest.fixture(scope="module")
def drawn(pristine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots")
    return {
        name: plots.save(figure, folder / f"{name}.svg").read_text()
        for name, figure in plots.figures(pristine, best="four_bit").items()
    }


def test_the_whole_story_is_told(frame, choice, drawn):
    per_class = {"four_bit": pd.DataFrame({"class": ["cat", "dog"], "recall": [0.743, 0.81]})}
    page = written(frame, choice, plots=drawn, per_class=per_class, noisy=["A/A ratio 1.07"])
    text = " ".join(read(page).words)
    for words in (
        "6 compressed models against the baseline",
        "one session on A CPU",
        "Best on validation:",
        "Constraint: drop of top-1 at most 1 point.",
        "88.05 %",
        "Top-1 accuracy on test; baseline 88.21 %",
        "latency ratio, measured [2.19, 2.28]",
        "Accuracy on test: a drop of 0.16 [−0.14, 0.46] points.",
        "Timing is flagged noisy: A/A ratio 1.07.",
        "Outside the constraint, least violation first",
        "svd failed: rank 0 at layer1",
        "accuracy=top1 speed=chats size=disk zeta=1 lambdas=1,1,1,1",
        "avx2, avx512_vnni",
        "netzip compress recipes/resnet20_cifar10.yaml",
        "name: resnet20",
        "0.743",
        "P x (λ1 (P−1)",
        "Top-1 accuracy against size on disk",
    ):
        assert words in text


def test_it_is_self_contained(frame, choice, drawn):
    page = written(frame, choice, plots=drawn)
    checker = read(page)
    assert all(address.startswith("#") for address in checker.addresses)
    assert not checker.names & {"script", "link", "img", "iframe", "object", "form"}
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert len(checker.ids) == len(set(checker.ids))
    assert len(page.encode()) < LIMIT_BYTES


def test_everything_is_escaped(frame, choice):
    evil = "<script>alert('x')</script>&\""
    texts = ["verdict", "reasons", "chain", "flags", "error", "run_id", "float_layers"]
    frame[texts] = evil
    page = written(
        frame.assign(name=[f"{n}{evil}" for n in frame["name"]]),
        Choice(f"four_bit{evil}", None, evil),
        title=evil,
        constraint=evil,
        basis=evil,
        machine={evil: evil},
        recipe_yaml=evil,
        command=evil,
        subject={evil: evil},
        noisy=[evil],
        per_class={evil: pd.DataFrame({"class": [evil], evil: [1]})},
    )
    assert "script" not in read(page).names
    assert "<script" not in page


def test_a_best_that_fails_the_constraint_on_test_is_said_aloud(frame, choice):
    assert "On test it is outside the constraint" not in written(frame, choice)
    frame.loc[frame["name"] == "four_bit", "score/feasible"] = 0.0
    assert "On test it is outside the constraint" in written(frame, choice)


def test_without_a_best_the_least_violating_is_named(frame):
    page = written(frame, Choice(None, "half_macs", "none of 5 keeps the limit"))
    text = "".join(read(page).words)
    assert "Nothing satisfies the constraint. Least violating: half_macs" in text
    assert "Best on validation" not in text


def test_nothing_was_measured(frame):
    page = written(frame[frame["name"].isin(["baseline", "svd"])], Choice(None, None, ""))
    assert "No candidate was measured." in "".join(read(page).words)


def test_costs_in_words(frame, choice):
    at = frame["name"] == "four_bit"
    frame.loc[at, "accuracy/mcnemar_p"] = 0.31
    frame.loc[at, "fidelity/agreement"] = 0.985
    frame.loc[at, "fidelity/negative_flips"] = 0.0076
    frame.loc[at, "fidelity/positive_flips"] = 0.006
    frame.loc[at, "fidelity/worst_class_drop_points"] = 1.4
    text = "".join(read(written(frame, choice)).words)
    assert "It cannot be told from the baseline's accuracy (McNemar's exact p 0.310)." in text
    assert "on 98.50 % of the samples; 0.76 % turn from right to wrong, 0.60 % from wrong" in text
    assert "The class that suffers most loses 1.40 points of recall." in text
    frame.loc[at, "accuracy/mcnemar_p"] = 1e-9
    text = "".join(read(written(frame, choice)).words)
    assert "It differs from the baseline's accuracy (McNemar's exact p < 0.001)." in text


def test_plots_that_do_not_fit_are_left_out_and_counted(frame, choice, drawn):
    first = next(iter(drawn.values()))
    big = first.replace("</svg>", f"<desc>{'x' * 200_000}</desc></svg>")
    page = written(frame, choice, plots={"a": big, "b": big, "c": big})
    assert len(page.encode()) < LIMIT_BYTES
    assert page.count("<svg") == 2
    assert "1 further pictures lie beside this file." in page


@pytest.mark.parametrize(("most", "left"), [(4, 3), (5, 2), (7, 0)])
def test_models_that_do_not_fit_are_counted_and_no_heading_is(
    frame, choice, monkeypatch, most, left
):
    """There are a baseline, three within the constraint, two outside, and a failed one."""
    monkeypatch.setattr(sections, "MOST_ROWS", most)
    page = written(frame, choice)
    assert ("Outside the constraint" in page) == (left < 3)
    assert re.findall(r"(\d+) further rows", page) == ([str(left)] if left else [])


def of_classes(names, seed=0, count=1000):
    """A table of classes for each name; class 7 loses most, class 8 gains most."""
    draw = np.random.default_rng(seed)
    change = draw.uniform(-40, 40, count)
    change[7], change[8] = -90.0, 90.0
    table = pd.DataFrame(
        {
            "class": [f"class {number}" for number in range(count)],
            "support": 50,
            "precision": draw.random(count),
            "recall": draw.random(count),
            "f1": draw.random(count),
            "recall_change_points": change,
        }
    )
    return dict.fromkeys(names, table), change


def test_of_a_thousand_classes_the_two_ends_are_shown(frame, choice):
    names = [f"candidate-{number}" for number in range(15)]
    per_class, change = of_classes(names)
    page = written(frame, choice, per_class=per_class)
    assert len(page.encode()) < LIMIT_BYTES
    checker = read(page)
    shown = [word for word in checker.words if word.startswith("class ")]
    order = np.argsort(change, kind="stable")
    wanted = [f"class {at}" for at in (*order[:10], *order[:-6:-1])]
    assert shown == wanted * len(names)
    text = " ".join(checker.words)
    assert text.count("985 of 1,000 classes are not shown: see per_class.csv") == len(names)
    assert all(f"<h3>{name}</h3>" in page for name in names)


def test_few_classes_are_all_shown_in_their_order(frame, choice):
    per_class, _ = of_classes(["one"], count=12)
    words = read(written(frame, choice, per_class=per_class)).words
    assert [w for w in words if w.startswith("class ")] == [f"class {n}" for n in range(12)]
    assert "classes are not shown" not in " ".join(words)


def test_classes_that_only_lose_have_no_gains_shown(frame, choice):
    per_class, _ = of_classes(["one"])
    per_class["one"]["recall_change_points"] = -1.0
    assert "Recall rose most: none" in read(written(frame, choice, per_class=per_class)).words


def test_pictures_give_way_before_classes(frame, choice, drawn):
    big = next(iter(drawn.values())).replace("</svg>", f"<desc>{'x' * 470_000}</desc></svg>")
    per_class, _ = of_classes([f"candidate-{number}" for number in range(15)])
    page = written(frame, choice, plots={"a": big, **drawn}, per_class=per_class)
    assert len(page.encode()) < LIMIT_BYTES
    assert page.count("classes are not shown") == 15
    assert page.count("<svg") == len(drawn), "the one that is too large is the one left out"
    assert "1 further pictures lie beside this file." in page


@settings(max_examples=6)
@given(data=some.data())
def test_no_page_is_too_large_whatever_it_is_to_show(pristine, data):
    words = some.text(string.printable, max_size=30).map(lambda text: text * 500)
    few = some.integers(0, 300)
    rows = pristine.to_dict("records")
    model = next(row for row in rows if row["name"] == "int8")
    rows += [model | {"name": f"c{n}", "chain": data.draw(words)} for n in range(data.draw(few))]
    failed = {"kind": "candidate", "status": "FAILED", "error": data.draw(words)}
    rows += [failed | {"name": f"f{n}"} for n in range(data.draw(few))]
    frame = pd.DataFrame(rows)
    for column in ("flags", "reasons", "float_layers"):
        frame[column] = data.draw(words)
    page = written(
        frame,
        Choice("four_bit", None, data.draw(words)),
        title=data.draw(words),
        constraint=data.draw(words),
        recipe_yaml=data.draw(words),
        command=data.draw(words),
        machine={"cpu": data.draw(words)},
        subject={"Data": data.draw(words)},
        noisy=[data.draw(words)],
        per_class=of_classes([f"c{n}" for n in range(data.draw(few))])[0],
    )
    assert len(page.encode()) < LIMIT_BYTES
    checker = read(page)
    text = " ".join(checker.words)
    assert "Best on validation:" in text
    assert "four_bit" in text
    if len(frame) > 150:
        assert "further rows: see comparison.csv" in text
