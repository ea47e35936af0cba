"""The report: one self-contained HTML file that reads well on its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from string import Template

import pandas as pd

from netzip_mlflow.report import details, sections
from netzip_mlflow.report.markup import Markup, clip, tag, tags
from netzip_mlflow.report.ranking import arrange
from netzip_mlflow.scoring import Choice

__all__ = ["LIMIT_BYTES", "report"]

LIMIT_BYTES = 500_000
RESERVED = 4_000  # for headings, and for sentences on what is left out
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

    The page stays below `LIMIT_BYTES`, whatever there is to show. Room is given in this order: rows
    of the table, what reproduces it, a card per candidate, classes, pictures. What is left out is
    counted, and where it lies is said.

    Raises:
        NetzipError: a frame that cannot be arranged.
    """
    parts = arrange(frame)
    title = clip(title)
    begin = (
        sections.heading(parts, title, subject or {}, machine),
        sections.winner(parts, best, constraint),
        tag(
            "div",
            sections.costs(parts, best),
            sections.doubts(parts, best, terms, noisy),
            class_="two",
        ),
    )
    end = (details.background(machine, basis, terms, constraint), details.definitions())
    room = _Room(LIMIT_BYTES - RESERVED - len(_page(title, tags(*begin, *end)).encode()))
    table = sections.table(parts, best, room.fits)
    how = details.reproduction(command, recipe_yaml)
    how = how if room.fits(how) else details.UNPRINTED
    cards, more_cards = room.split(details.cards(parts, best))
    per_model, more_models = room.split(details.classes(per_class or {}))
    drawn, more_drawn = room.split(sections.figures(plots or {}))
    body = (
        *begin,
        table,
        sections.section("Pictures", "plots", drawn, more_drawn, "pictures lie beside this file"),
        sections.section(
            "Each candidate", "cards", cards, more_cards, "candidates: see comparison.csv"
        ),
        sections.section(
            "Classes", "cards", per_model, more_models, "tables: see per_class.csv of each run"
        ),
        *end,
        how,
        tag("footer", _FOOTER),
    )
    return _page(title, tags(*body))


class _Room:
    """What is left of a page, in bytes; whoever asks first is let in."""

    def __init__(self, size: int) -> None:
        self._left = size

    def fits(self, block: Markup) -> bool:
        """Whether there is room for a block, which it then takes."""
        size = len(block.encode())
        if size > self._left:
            return False
        self._left -= size
        return True

    def split(self, blocks: Iterable[Markup]) -> tuple[list[Markup], int]:
        """The blocks that fit, and how many do not."""
        listed = list(blocks)
        inside = [block for block in listed if self.fits(block)]
        return inside, len(listed) - len(inside)


def _page(title: str, body: Markup) -> str:
    here = resources.files("netzip_mlflow.report")
    template = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    style = here.joinpath("page.css").read_text(encoding="utf-8")
    return template.substitute(title=tags(title), style=style, body=body)
