from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from netzip_mlflow.report import plots
from netzip_mlflow.report.style import BASELINE_COLOUR, GRID, INK, MUTED, PAPER
from netzip_mlflow.report.svg import inline


@pytest.fixture
def svg(frame, tmp_path):
    figure = plots.draw_plane(plots.plane(frame, "size/disk_bytes", best="four_bit"))
    return plots.save(figure, tmp_path / "plane.svg").read_text()


def test_it_stays_well_formed_and_loses_no_text(svg):
    picture = ElementTree.fromstring(inline(svg, "plane"))  # noqa: S314 (our own picture)
    texts = {t.text for t in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"★ four_bit", "Size on disk, kB, log scale"} <= texts


def test_ids_are_unique_to_the_picture_and_still_found(svg):
    picture = inline(svg, "plane a")
    ids = set(re.findall(r'\bid="([^"]*)"', picture))
    assert all(i.startswith("plane-a-") for i in ids)
    used = set(re.findall(r'href="#([^"]*)"', picture)) | set(
        re.findall(r"url\(#([^)]*)\)", picture)
    )
    assert used
    assert used <= ids


def test_theme_colours_become_the_pages(svg):
    picture = inline(svg, "plane")
    assert not any(shade in picture for shade in (INK, MUTED, GRID, PAPER))
    assert "var(--ink)" in picture
    assert BASELINE_COLOUR in picture


def test_the_page_decides_the_size_and_nothing_is_external(svg):
    head = inline(svg, "plane").split(">", 1)[0]
    assert "viewBox" in head
    assert "width=" not in head
    assert "height=" not in head
    assert "<metadata>" not in inline(svg, "plane")
    assert "DOCTYPE" not in inline(svg, "plane")


def test_what_is_no_svg():
    with pytest.raises(ValueError, match="plot 'x' is no SVG"):
        inline("<html>", "x")


def test_what_nobody_sees_is_left_out_and_nothing_else(svg):
    """Ids without a use and digits below a hundredth of a point go; texts and places stay."""
    before, after = (ElementTree.fromstring(x) for x in (svg, inline(svg, "plane")))  # noqa: S314
    name = "{http://www.w3.org/2000/svg}text"
    places = [[(t.text, t.get("x"), t.get("y")) for t in x.iter(name)] for x in (before, after)]
    assert len(places[0]) == len(places[1]) > 10
    for (text, x, y), (same, x_after, y_after) in zip(*places, strict=True):
        assert text == same
        if x is not None:
            assert abs(float(x) - float(x_after)) < 0.01
            assert abs(float(y) - float(y_after)) < 0.01
    assert len(inline(svg, "plane")) < 0.8 * len(svg)
