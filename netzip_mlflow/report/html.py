"""The report: one self-contained HTML file that reads well on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template

import pandas as pd

from netzip_mlflow.errors import NetzipError
from netzip_mlflow.report import details, sections
from netzip_mlflow.report.markup import Markup, tag, tags
from netzip_mlflow.report.standing import arrange
from netzip_mlflow.scoring import Choice

__all__ = ["LIMIT_BYTES", "report"]

LIMIT_BYTES = 500_000
_FOOTER = "Written by netzip-mlflow. Intervals are 95 %; figures that name no split are of test."


def report(
    frame: pd.DataFrame,
    *,
    title: str,
    best: Choice,
    constraint: str,
    basis: str,
    terms: str,
    machine: Mapping[str, object],
    recipe_yaml: str = "",
    command: str = "",
    subject: Mapping[str, str] | None = None,
    noisy: Sequence[str] = (),
    plots: Mapping[str, str] | None = None,
    per_class: Mapping[str, pd.DataFrame] | None = None,
) -> str:
    """What was compared, on what machine, what won, what it cost, what is uncertain.

    Args:
        frame: as `standing.arrange` takes it.
        title: the heading.
        best: the choice that was made on validation.
        constraint: in words, ``drop of top-1 at most 1 point``.
        basis: `Basis.label()`.
        terms: ``P,S,C`` or ``P,S,C,E``.
        machine: the fingerprint, label -> value.
        recipe_yaml: the resolved recipe.
        command: what reproduces the comparison.
        subject: what was compared, label -> value (task, network, data, splits).
        noisy: reasons why the timing is flagged; empty when it is not.
        plots: name -> text of an SVG, in the order in which they stand.
        per_class: model's name -> a table with a column ``class``.

    Plots that would make the page 500 kB or larger are left out from the end, and it says so.

    Raises:
        NetzipError: a frame that cannot be arranged, or a page too large even without plots.
    """
    parts = arrange(frame)
    before = tags(
        sections.heading(parts, title, subject or {}, machine),
        sections.winner(parts, best, constraint),
        tag(
            "div",
            sections.costs(parts, best),
            sections.doubts(parts, best, terms, noisy),
            class_="two",
        ),
        sections.table(parts, best),
    )
    after = tags(
        details.candidates(parts, best),
        details.classes(per_class or {}),
        details.background(machine, basis, terms, constraint),
        details.definitions(),
        details.reproduction(command, recipe_yaml),
        tag("footer", _FOOTER),
    )
    given = dict(plots or {})
    for kept in range(len(given), -1, -1):
        shown = sections.pictures(dict(list(given.items())[:kept]), len(given) - kept)
        page = _page(title, tags(before, shown, after))
        if len(page.encode()) < LIMIT_BYTES:
            return page
    raise NetzipError(f"report.html would be over {LIMIT_BYTES:,} bytes even without plots")


def _page(title: str, body: Markup) -> str:
    here = resources.files("netzip_mlflow.report")
    template = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    style = here.joinpath("page.css").read_text(encoding="utf-8")
    return template.substitute(title=tags(title), style=style, body=body)
