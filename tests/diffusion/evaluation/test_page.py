"""The page of an evaluation: whole, partial and odd results become one file that stands alone and says what is so."""

import copy
import itertools
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from references.evaluation_result import METHODS, number, result

from bcos_diffusion.evaluation.page.report import report, sections
from bcos_diffusion.evaluation.page.results import floats, number_at, show
from bcos_diffusion.evaluation.page.results import number as read_number
from bcos_diffusion.page.html import page
from bcos_diffusion.page.section import Cell, Example, Picture, Section, Sheet, Table

VOID = {"meta", "img", "br", "link", "input"}


class Parsed(HTMLParser):
    """Every element with its attributes; fails where tags do not balance."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.said += data

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def sheet() -> Sheet:
    picture = Picture(b"\x89PNG", 'a "map" of <cat>', "IoU 3%")
    shown = Example("Scene 1: a <cat>", "IoU 3%", (picture,), ("true region", "DAAM"), (("cat", (picture, picture)),))
    return Sheet("The worst", "by IoU", (shown,))


def test_the_page_is_balanced_accessible_and_loads_nothing() -> None:
    text = report(result(), [sheet()])
    found = Parsed(text)
    assert not found.every("script") and not found.every("link") and not found.every("iframe")
    for _, attributes in found.found:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "data", "srcset", "action"):
                assert (value or "").startswith(("data:image/png;base64,", "#"))
    assert "url(" not in text and "@import" not in text and "http" not in text.replace("http-equiv", "")
    images = found.every("img")
    assert len(images) == 3 and all(image["alt"] for image in images)
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in found.every("svg"))
    assert all(head.get("scope") in ("col", "row") for head in found.every("th"))
    names = [attributes["id"] for _, attributes in found.found if "id" in attributes]
    assert len(names) == len(set(names))
    assert {a["href"] for a in found.every("a")} <= {f"#{name}" for name in names}
    levels = [int(tag[1]) for tag, _ in found.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert 'lang="en"' in text and "width=device-width" in text and "default-src 'none'" in text


def test_what_is_read_from_a_result_is_escaped() -> None:
    values = result()
    values["name"] = "<script>alert(1)</script>"
    text = report(values, [sheet()])
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "a &lt;processor&gt;" in text


def test_everything_measured_is_on_the_page() -> None:
    said = Parsed(report(result(), [sheet()])).said
    for expected in ("scenes-32", "c0ffee", "ab" * 32, "a <processor>", "2 cores", "2030-01-02", "2 h 13 min 20 s",
                     "bcos-diffusion evaluate --preset scenes", "DAAM", "integrated gradients", "ROC", "Calibration",
                     "random-convnet", "completeness error", "the initial noise x_T", "[88.0, 92.0]",
                     "90 of 800 objects named in 300 pictures", "ensured, judged early too", "after step 10 of 25",
                     "another seed and a stronger value", "Calibration: natural misses",
                     "segmenter's own mIoU on held-out scenes: 96.0"):  # fmt: skip
        assert expected in said, expected


@pytest.mark.parametrize("kept", [(), ("regime_a",), ("missing", "quality"), ("name", "provenance", "budget")])
def test_parts_that_are_absent_are_named_as_missing(kept: tuple[str, ...]) -> None:
    values = {key: part for key, part in result().items() if key in kept}
    parts = {section.key: section for section in sections(values)}
    for key in ("regime_a", "regime_b", "missing", "quality", "faithfulness"):
        assert bool(parts[key].missing) == (key not in kept)
        assert bool(parts[key].tables) == (key in kept)
    assert "Not in this report" in Parsed(report(values)).said


def test_numbers_that_are_not_finite_are_words() -> None:
    values = result()
    rows = values["regime_a"]["methods"]
    rows["exact"]["ap"] = {"value": None, "low": None, "high": None}
    rows["daam"]["ap"] = {"value": "infinite", "low": 1.0, "high": "infinite"}
    rows["rollout"]["ap"] = {"value": math.nan, "low": math.nan, "high": math.nan}
    rows["exact"]["curves"]["iou"]["y"][3] = None
    rows["daam"]["curves"]["iou"]["y"] = [math.nan] * 21
    text = report(values)
    said = Parsed(text).said
    assert "undefined" in said and "infinite" in said
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+|[a-z]+nan", "", text.lower()) and "inf," not in text
    assert math.isnan(read_number("unheard of").value) and floats(None) == () and not number_at({}, "a", "b").known


@pytest.mark.parametrize(
    ("value", "scale", "digits", "expected"),
    [(0.12345, 100, 1, "12.3"), (-0.5, 1, 2, "−0.50"), (-0.0, 100, 1, "0.0"), (0.0, 1, 3, "0.000"),
     (0.0001, 100, 1, "1e−02"), (math.inf, 1, 1, "infinite"), (-math.inf, 1, 1, "−infinite"),
     (math.nan, 1, 1, "undefined")],
)  # fmt: skip
def test_numbers_are_shown(value: float, scale: float, digits: int, expected: str) -> None:
    assert show(value, scale, digits) == expected


def test_a_table_with_a_cell_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 heads"):
        Table("a", ("b", "c"), (("d",),))


def test_marks_are_said_in_words() -> None:
    cells = tuple(Cell("1", "[0, 2]", mark) for mark in ("best", "close", "beaten", "reached", "missed", "unknown"))
    text = page("t", [], [Section("s", "S", tables=(Table("c", tuple("abcdefg"), (("row", *cells),)),))])
    labels = {span["aria-label"] for span in Parsed(text).every("span")}
    assert len(labels) == 6 and "best" in labels and "missed" in labels


def test_the_page_of_a_thousand_scenes_is_small() -> None:
    assert len(report(result()).encode()) < 1_000_000


def test_a_method_of_the_twin_and_an_unknown_one_have_rows() -> None:
    values = copy.deepcopy(result())
    values["regime_a"]["methods"]["daam_twin"] = {"label": "DAAM, ordinary twin", "miou": number(0.5)}
    values["left_out"] = {"rollout": "it needs attention"}
    said = Parsed(report(values)).said
    assert "DAAM, ordinary twin" in said and "attention rollout is left out: it needs attention" in said


def test_ranks_of_words_stand_by_level_beside_the_best_that_a_score_without_silent_words_can_reach() -> None:
    parts = {section.key: section for section in sections(result())}
    ranks = next(table for table in parts["faithfulness"].tables if "by noise level" in table.caption)
    assert [head.split(", ")[-1].split("\N{NO-BREAK SPACE}")[0] for head in ranks.heads] == [
        "method", "t = 0.2 T", "t = 0.8 T", "all",
    ]  # fmt: skip
    rows = {row[0]: row[1:] for row in ranks.rows}
    knowing = "the effects of words that carry a value, 0 for others (oracle)"
    assert rows.keys() >= {"exact contributions (ours)", "leave one out (oracle)", knowing}
    assert [cell.text for cell in rows[knowing]] == ["0.90"] * 3 and not any(cell.mark for cell in rows[knowing])
    assert [cell.mark for cell in rows["exact contributions (ours)"]] == ["best"] * 3
    ahead = next(table for table in parts["faithfulness"].tables if "are ahead" in table.caption)
    assert ahead.rows == (("DAAM", "500", "0.30 [0.28, 0.32]"),)


def methods_in(values: Any) -> set[str]:
    return set(values["regime_a"]["methods"])


def test_the_made_up_result_has_every_method() -> None:
    assert methods_in(result()) == set(METHODS)
