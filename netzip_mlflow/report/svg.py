"""Makes a saved SVG part of a page: unique ids, the page's own colours and typeface."""

from __future__ import annotations

import re

from netzip_mlflow.report.markup import Markup
from netzip_mlflow.report.style import GRID, INK, MUTED, PAPER

__all__ = ["inline"]

_THEME = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--card"}
_ATTRIBUTE = re.compile(r' (?:d|x|y|x1|x2|y1|y2|width|height|transform)="[^"]*"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_SIZE = re.compile(r'(<svg\b[^>]*?)\s(?:width|height)="[^"]*"')


def inline(svg: str, name: str) -> Markup:
    """The `svg` element of a file's text, ready to stand in HTML.

    Ids get the prefix `name`, since all pictures of a page share one space of ids; the four theme
    colours of `style` become the page's variables; the size is left to the page. What nobody sees
    is left out, a third of the text: ids that nothing refers to, coordinates below a hundredth of
    a point.

    Raises:
        ValueError: when the text holds no svg element.
    """
    start = svg.find("<svg")
    if start < 0:
        raise ValueError(f"plot {name!r} is no SVG")
    picture = re.sub(r"<metadata>.*?</metadata>", "", svg[start:], flags=re.DOTALL)
    picture = re.sub(r"<!--.*?-->", "", picture, flags=re.DOTALL)
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    picture = re.sub(r'\bid="', f'id="{prefix}-', picture)
    picture = re.sub(r'href="#', f'href="#{prefix}-', picture)
    picture = picture.replace("url(#", f"url(#{prefix}-")
    for shade, variable in _THEME.items():
        picture = re.sub(f"(?<=: ){shade}", f"var({variable})", picture)
    for _ in range(2):
        picture = _SIZE.sub(r"\1", picture, count=1)
    picture = re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", picture)
    picture = re.sub(r">\s+<", "><", picture)
    return Markup(_shortened(picture).strip())


def _shortened(picture: str) -> str:
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', picture))
    picture = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", picture)
    picture = re.sub(r' transform="rotate\(-?0 [^"]*"', "", picture)
    return _ATTRIBUTE.sub(lambda m: re.sub(r"\s*\n", "", _DECIMALS.sub(r"\1", m[0])), picture)
