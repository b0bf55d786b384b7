"""Charts as SVG: axes, lines that stop where there is no number, and nothing told by colour alone."""

import math
import re
from xml.etree import ElementTree

import pytest

from bcos_diffusion.page.curves import draw, ticks
from bcos_diffusion.page.section import Chart, Line


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 25, [0, 5, 10, 15, 20, 25]), (-0.5, 0.5, [-0.4, -0.2, 0, 0.2, 0.4])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_an_axis_without_length_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low below high"):
        ticks(*ends)


def chart(*lines: Line) -> ElementTree.Element:
    return ElementTree.fromstring(draw(Chart("A & B", "x", "y", lines, diagonal="chance")))


def paths(figure: ElementTree.Element) -> list[str]:
    drawing = figure.find("svg")
    assert drawing is not None
    return [path.attrib["d"] for group in drawing.iter("g") for path in group.iter("path")]


def test_a_line_goes_through_its_points_and_stops_where_there_is_none() -> None:
    (path,) = paths(chart(Line("a", (0, 0.5, 0.6, 1), (0, 1, math.nan, 0.25), 0)))
    numbers = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]
    assert path.count("M") == 2
    left, right, top, bottom = 52.0, 448.0, 12.0, 254.0
    height = bottom - top
    assert numbers == [(left, bottom), ((left + right) / 2, top), (right, bottom - 0.25 * height)]


def test_lines_differ_by_more_than_colour() -> None:
    figure = chart(*(Line(f"line {k}", (0, 1), (0, k / 10), k) for k in range(10)))
    looks = set()
    for entry in list(figure.iter("li"))[:10]:
        group = next(entry.iter("g"))
        marker = next((e.tag, len(e.attrib.get("points", "").split())) for e in group if e.tag != "path")
        looks.add((group[0].attrib.get("stroke-dasharray", ""), marker))
    assert len(looks) == 10
    assert [li.text or "".join(li.itertext()) for li in figure.iter("li")][-1].endswith("chance")


def test_a_line_of_nothing_is_not_drawn_and_the_title_is_escaped() -> None:
    figure = chart(Line("empty", (), (), 0), Line("unknown", (0, 1), (math.nan, math.inf), 1))
    assert paths(figure) == []
    caption = figure.find("figcaption")
    assert caption is not None and caption.text == "A & B"
