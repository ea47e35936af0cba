"""The report's later sections: each candidate, classes, machine, definitions, reproduction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from netzip_mlflow.metrics.catalogue import extra, find
from netzip_mlflow.metrics.row import Row
from netzip_mlflow.report.cells import interval
from netzip_mlflow.report.explain import explain
from netzip_mlflow.report.markup import (
    NOTHING,
    Child,
    Markup,
    badge,
    clip,
    pairs,
    sentence,
    tag,
    tags,
)
from netzip_mlflow.report.ranking import Standing, accuracy_key
from netzip_mlflow.scoring import Choice

__all__ = ["UNPRINTED", "background", "cards", "classes", "definitions", "reproduction"]

WORST, GAINED = 10, 5  # classes of one model that are shown where there are more
MOST_LINES = 20  # of reasons and of flags, on a card
_CHANGE = "recall_change_points"
_HEADS = {_CHANGE: "Change, points", "support": "Samples"}
_DETAILS = (
    "accuracy/drop_points",
    "accuracy/mcnemar_p",
    "accuracy/ece",
    "speed/latency_ms",
    "speed/latency_ms_p95",
    "speed/ops",
    "speed/chats",
    "size/disk_bytes",
    "size/zip_bytes",
    "size/parameters",
    "size/sparsity",
    "size/ram_bytes",
    "energy/joules",
    "fidelity/agreement",
    "fidelity/negative_flips",
    "fidelity/positive_flips",
    "fidelity/worst_class_drop_points",
)
_DEFINITIONS = (
    ("P, performance", "accuracy of the candidate / accuracy of the baseline"),
    (
        "S, speed-up",
        (
            "speed of the baseline / speed of the candidate, on the basis named above. CHATS: the "
            "sum over layers of operations x bit width"
        ),
    ),
    ("C, compression", "size of the baseline / size of the candidate, on the basis named above"),
    ("E, efficiency", "energy of the baseline / energy of the candidate; left out without a meter"),
    (
        "OCS",
        (
            "P x (λ1 (P−1) + λ2 (S−1) + λ3 (C−1) + λ4 (E−1)) over the terms that took part. The "
            "baseline's is 0, negative is worse than no compression. Only candidates within the "
            "constraint are ranked by it"
        ),
    ),
    (
        "Ratio (of latency)",
        (
            "median over interleaved rounds of baseline / candidate, measured, with its interval; "
            "an interval that contains 1 is no measurable change"
        ),
    ),
    (
        "Drop",
        "accuracy of the baseline − accuracy of the candidate, in points, on the same samples",
    ),
    (
        "Verdict",
        (
            "good: within the constraint, something improved, nothing worse. mixed: within it, but "
            "something is worse. poor: outside it, or nothing improved"
        ),
    ),
)


def cards(parts: Standing, best: Choice) -> Iterator[Markup]:
    """One for each candidate: chain, verdict with its reasons, explanations, figures."""
    for row in parts.candidates:
        yield _card(row, starred=row.name == best.best)
    for row in parts.failed:
        head = tag("h3", row.name, badge("failed"))
        why = clip(row.error) or "no reason was recorded"
        yield tag("article", head, tag("p", why), class_="card")


def classes(per_class: Mapping[str, pd.DataFrame]) -> Iterator[Markup]:
    """One table for each model; figures as they come, three digits after the point.

    Where there are many classes, those whose recall fell most and those whose recall rose most.
    """
    for name, frame in per_class.items():
        head = [
            tag("th", _HEADS.get(str(c), _spoken(str(c))), class_="text" if c == "class" else "")
            for c in frame.columns
        ]
        rows: list[Markup] = []
        shown = 0
        for what, part in _ends(frame):
            if what:
                rows.append(tag("tr", tag("td", what, colspan=str(len(head))), class_="band"))
            rows += _rows(part)
            shown += len(part)
        note = NOTHING
        if shown < len(frame):
            said = f"{len(frame) - shown:,} of {len(frame):,} classes are not shown"
            note = tag("p", f"{said}: see per_class.csv of this candidate's run.", class_="muted")
        body = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows))
        table = tag("div", body, class_="scroll")
        yield tag("article", tag("h3", name), note, table, class_="card")


def _ends(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """All classes where they are few, else those at both ends of the change of recall."""
    if len(frame) <= WORST + GAINED:
        yield "", frame
    elif _CHANGE not in frame:
        ordered = frame.sort_values("recall", kind="stable") if "recall" in frame else frame
        yield "", ordered.head(WORST + GAINED)
    else:
        ordered = frame.sort_values(_CHANGE, kind="stable")
        fell = ordered.loc[ordered[_CHANGE] < 0].head(WORST)
        rose = ordered.loc[ordered[_CHANGE] > 0].iloc[::-1].head(GAINED)
        yield from (
            (what if len(part) else f"{what}: none", part)
            for what, part in (("Recall fell most", fell), ("Recall rose most", rose))
        )


def _rows(frame: pd.DataFrame) -> list[Markup]:
    return [
        tag(
            "tr",
            [
                tag("td", _figure(value), class_="text" if column == "class" else "")
                for column, value in record.items()
            ],
        )
        for record in frame.to_dict("records")
    ]


def background(machine: Mapping[str, object], basis: str, terms: str, constraint: str) -> Markup:
    score = [("Basis", basis), ("Terms", terms), ("Constraint", constraint)]
    fingerprint = [(_spoken(str(key)), _value(value)) for key, value in machine.items()]
    cards = [tag("div", tag("h3", "Score"), pairs(score), class_="card")]
    if fingerprint:
        cards.append(tag("div", tag("h3", "Machine"), pairs(fingerprint), class_="card"))
    return tags(tag("h2", "Basis and machine"), tag("div", cards, class_="two"))


def definitions() -> Markup:
    return tags(tag("h2", "Definitions"), tag("div", pairs(_DEFINITIONS), class_="card"))


UNPRINTED = tag("p", "The command and the recipe are too long for this page: see recipe.yaml.")


def reproduction(command: str, recipe_yaml: str) -> Markup:
    shown: list[Child] = []
    if command:
        shown += [tag("h2", "Reproduce"), tag("pre", tag("code", command))]
    if recipe_yaml:
        shown += [tag("h2", "Recipe, resolved"), tag("pre", tag("code", recipe_yaml))]
    return tags(shown)


def _card(row: Row, *, starred: bool) -> Markup:
    accuracy = accuracy_key([row])
    figures = [(find(accuracy).label, interval(row, accuracy))]
    validation = interval(row, f"validation/{accuracy}")
    if validation:
        figures.append((f"{find(accuracy).label}, validation", validation))
    figures += [(_label(key), interval(row, key)) for key in (*_DETAILS, *extra(row.metrics))]
    if row.run_id:
        figures.append(("MLflow run", row.run_id))
    reasons = [clip(r) for r in row.reasons[:MOST_LINES]]
    flags = [f"Flag: {clip(f)}" for f in row.flags[:MOST_LINES]]
    story = explain(row)
    # the explanation opens with the same figures as the verdict's reason on latency
    told = [sentence(r) for r in reasons if not (story and r.startswith("latency:"))]
    told += [*story, *flags]
    chain = clip(row.chain)
    return tag(
        "article",
        tag("h3", f"{'★ ' if starred else ''}{row.name}", badge(row.verdict)),
        tag("p", tag("code", chain)) if chain else NOTHING,
        tag("ul", [tag("li", t) for t in told]) if told else NOTHING,
        pairs((label, shown) for label, shown in figures if shown),
        class_="card",
    )


def _label(key: str) -> str:
    what = find(key)
    return what.axis() if what.unit == "points" else what.label


def _spoken(key: str) -> str:
    """``change_points`` as ``Change points``."""
    words = re.sub(r"[_/]+", " ", key)
    return words[:1].upper() + words[1:]


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(str(item) for item in value)
    return str(value)


def _figure(value: Any) -> str:
    if isinstance(value, str):
        return clip(value, 60)
    if pd.isna(value):
        return ""
    return f"{value:d}" if isinstance(value, int) else f"{value:.3f}".replace("-", "−")
