"""The report's first sections: what won, what it costs, what is uncertain, table, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from netzip_mlflow.metrics.catalogue import find
from netzip_mlflow.metrics.metric import percent, points, probability, times
from netzip_mlflow.metrics.row import Row
from netzip_mlflow.report.caveats import doubts as doubts_in_words
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
from netzip_mlflow.report.svg import inline
from netzip_mlflow.report.table import summary
from netzip_mlflow.scoring import Choice

__all__ = ["costs", "doubts", "figures", "heading", "section", "table", "winner"]

MOST_ROWS = 100  # of the table
_CAPTIONS = {
    "accuracy_latency": (
        "Whiskers: 95 % intervals; accuracy's are those of the paired difference from the baseline."
    ),
    "accuracy_size": "Size of the file that ships. Up and left is better.",
    "radar": "Other candidates in grey. On P, S, C and E, outside the ring is a gain.",
}


def heading(
    parts: Standing, title: str, subject: Mapping[str, str], machine: Mapping[str, object]
) -> Markup:
    tried = len(parts.feasible) + len(parts.infeasible) + len(parts.failed)
    compared = f"{tried} compressed model{'s' if tried != 1 else ''} against the baseline, measured"
    where = str(machine.get("cpu") or machine.get("CPU") or "one machine")
    compared += f" in one session on {where}." if machine else " in one session."
    listed = pairs(subject.items()) if subject else NOTHING
    return tag("header", tag("h1", title), tag("p", compared, class_="lead"), listed)


def winner(parts: Standing, best: Choice, constraint: str) -> Markup:
    """What to ship, or that nothing can be, with its main figures against the baseline."""
    row = parts.find(best.named)
    if row is None:
        return tag("section", tag("p", "No candidate was measured.", class_="claim"),
                   class_="card winner none")  # fmt: skip
    base = parts.baseline
    name = row.name
    if best.best:
        claim = tags("Best on validation: ", tag("strong", name), badge(row.verdict))
        why = f"Constraint: {constraint}. {sentence(best.reason)}"
    else:
        claim = tags("Nothing satisfies the constraint. Least violating: ", tag("strong", name))
        why = f"Constraint: {constraint}. {sentence(best.reason)}"
    chain = clip(row.chain)
    return tag(
        "section",
        tag("p", claim, class_="claim"),
        tag("p", tag("code", chain)) if chain else NOTHING,
        tag("p", clip(why, 1_000), class_="muted"),
        _alert(row, best),
        tag("div", _tiles(base, row), class_="tiles"),
        class_=f"card winner {_tone(row, best)}".strip(),
    )


def costs(parts: Standing, best: Choice) -> Markup:
    """What the named candidate costs, in words."""
    row = parts.find(best.named)
    if row is None:
        return NOTHING
    said: list[str] = []
    if row.metrics.get("accuracy/drop_points") is not None:
        drop = interval(row, "accuracy/drop_points")
        said.append(f"Accuracy on test: a drop of {drop} points.")
    p = row.metrics.get("accuracy/mcnemar_p")
    if p is not None:
        found = "differs from" if p < 0.05 else "cannot be told from"
        said.append(f"It {found} the baseline's accuracy (McNemar's exact p {probability(p)}).")
    worst = row.metrics.get("fidelity/worst_class_drop_points")
    if worst is not None:
        said.append(f"The class that suffers most loses {points(worst)} points of recall.")
    agree = row.metrics.get("fidelity/agreement")
    if agree is not None:
        said.append(_flips(row, agree))
    said += explain(row)
    return _list("What it costs", said or ["Nothing was measured that could tell."])


def doubts(parts: Standing, best: Choice, terms: str, noisy: Iterable[str]) -> Markup:
    """What is uncertain about the choice."""
    named = parts.find(best.named)
    return _list("What is uncertain", doubts_in_words(parts, named, best, terms, noisy))


def table(
    parts: Standing, best: Choice, fits: Callable[[Markup], bool] = lambda _row: True
) -> Markup:
    """The summary of all models: those outside the constraint apart, failed ones with why.

    Args:
        fits: asked for each row, the baseline's first, whether the page has room for it.
    """
    columns = [column for column in summary(parts) if column.header != "Verdict"]
    head = [tag("th", c.header, class_="" if c.figures else "text") for c in columns]
    rows: list[Markup] = []
    left_out = 0
    for line in _lines(columns, parts, best):
        if len(rows) < MOST_ROWS and fits(line):
            rows.append(line)
        else:
            left_out += 1
    if left_out:
        rows.append(_band(len(columns), f"{left_out} further rows: see comparison.csv"))
    body = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows))
    return tags(tag("h2", "Comparison"), tag("div", body, class_="scroll"))


def _lines(columns: Sequence[Any], parts: Standing, best: Choice) -> Iterator[Markup]:
    """A line for each model; the first one outside the constraint brings its heading along."""
    yield _line(columns, parts.baseline, "baseline")
    for row in parts.feasible:
        yield _line(columns, row, "best" if row.name == best.best else "")
    heading = _band(len(columns), "Outside the constraint, least violation first")
    for row in parts.infeasible:
        yield tags(heading, _line(columns, row, "infeasible"))
        heading = NOTHING
    for row in parts.failed:
        why = clip(row.error) or "no reason was recorded"
        yield _band(len(columns), f"{row.name} failed: {why}")


def figures(plots: Mapping[str, str]) -> Iterator[Markup]:
    """The plots, inlined, with what is to be known to read them."""
    for name, svg in plots.items():
        caption = _CAPTIONS.get(name)
        below = tag("figcaption", caption) if caption else NOTHING
        yield tag("figure", inline(svg, name), below, class_="wide" if name == "radar" else "")


def section(title: str, style: str, blocks: Sequence[Markup], left_out: int, where: str) -> Markup:
    """Blocks below a heading; `left_out` counts those that the page has no room for."""
    if not blocks and not left_out:
        return NOTHING
    more = tag("p", f"{left_out} further {where}.", class_="muted") if left_out else NOTHING
    return tags(tag("h2", title), tag("div", blocks, class_=style), more)


def _tone(row: Row, best: Choice) -> str:
    if not best.best:
        return "none"
    return "warned" if row.metrics.get("score/feasible") == 0 else ""


def _alert(row: Row, best: Choice) -> Markup:
    if not best.best or row.metrics.get("score/feasible") != 0:
        return NOTHING
    drop = interval(row, "accuracy/drop_points", points)
    told = (
        f"On test it is outside the constraint (drop {drop} points), though it was within it on "
        "validation. A test figure chooses nothing: it was not replaced, but weigh this before "
        "shipping it."
    )
    return tag("p", told, class_="alert")


def _tiles(base: Row, row: Row) -> list[Markup]:
    accuracy = accuracy_key([base, row])
    tiles = [
        (
            interval(row, accuracy),
            f"{find(accuracy).label} on test; baseline {interval(base, accuracy)}",
        )
    ]
    for key, noun in (("ratio/its", "latency ratio, measured"), ("ratio/C", "C, compression")):
        value = row.metrics.get(key)
        if value is not None:
            operand = "speed/latency_ms" if key == "ratio/its" else "size/disk_bytes"
            tiles.append((f"{times(value)} ×", _against(base, row, key, noun, operand)))
    for key in ("ratio/S", "ratio/E", "score/ocs"):
        value = row.metrics.get(key)
        if value is not None:
            told = find(key).label
            if key == "score/ocs" and row.metrics.get(f"validation/{key}") is not None:
                told = f"OCS on test; validation {interval(row, f'validation/{key}', times)}"
            tiles.append((times(value) + (" ×" if key != "score/ocs" else ""), told))
    return [tag("div", tag("b", big), tag("span", small), class_="tile") for big, small in tiles]


def _against(base: Row, row: Row, key: str, noun: str, operand: str) -> str:
    low, high = row.metrics.get(f"{key}_low"), row.metrics.get(f"{key}_high")
    spread = f" [{times(low)}, {times(high)}]" if low is not None and high is not None else ""
    before, after = base.metrics.get(operand), row.metrics.get(operand)
    if before is None or after is None:
        return noun + spread
    show = find(operand).show
    return f"{noun}{spread}; {show(before)} → {show(after)}"


def _flips(row: Row, agree: float) -> str:
    told = f"It answers as the baseline does on {percent(agree)} of the samples"
    harm, gain = (row.metrics.get(f"fidelity/{key}_flips") for key in ("negative", "positive"))
    if harm is None or gain is None:
        return f"{told}."
    return f"{told}; {percent(harm)} turn from right to wrong, {percent(gain)} from wrong to right."


def _list(title: str, sentences: Iterable[str]) -> Markup:
    return tag(
        "div",
        tag("h3", title),
        tag("ul", [tag("li", clip(s, 600)) for s in sentences]),
        class_="card",
    )


def _line(columns: Iterable[Any], row: Row, standing: str) -> Markup:
    cells = []
    for column in columns:
        shown: Child = column.cell(row)
        if column.header == "Model":
            star = "★ " if standing == "best" else ""
            chain = clip(row.chain)
            shown = tags(star, shown, badge(row.verdict), tag("small", chain) if chain else NOTHING)
        else:
            shown = _with_quiet_interval(shown)
        cells.append(tag("td", shown, class_="" if column.figures else "text"))
    return tag("tr", cells, class_=standing)


def _with_quiet_interval(cell: str) -> Markup:
    value, bracket, rest = cell.partition(" [")
    return tags(value, tag("i", f" [{rest}")) if bracket else tags(value)


def _band(width: int, words: str) -> Markup:
    return tag("tr", tag("td", words, colspan=str(width)), class_="band")
