"""The tables of docs/evaluation.md from a result, whole or in part."""

import importlib
import re
from pathlib import Path

import pytest
from references.evaluation_result import number, result

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # scripts import one another by their bare names
    return importlib.import_module("evaluation_tables")


def widths(text: str) -> list[set[int]]:
    """The numbers of cells in each table's lines."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    return [{len(re.split(r"(?<!\\)\|", line)) for line in block.strip().splitlines()} for block in blocks]


def test_every_table_is_whole(tables) -> None:
    values = result()
    for name, (_, source, render) in tables.TABLES.items():
        if source in (tables.SOURCE, tables.TWIN):
            text = render(values)
            assert all(len(width) == 1 for width in widths(text)) and widths(text), name


def test_what_is_beaten_is_marked_and_said(tables) -> None:
    values = result()
    values["regime_a"]["methods"]["daam"]["pointing"] = number(0.95)
    text = tables.TABLES["evaluation_regime_a"][2](values)
    assert "▼ 90.0 [88.0, 92.0]" in text and "★ 95.0 [93.0, 97.0]" in text
    assert "- pointing game: DAAM is better than ours" in text
    assert "\\|gradient\\|" in text


def test_targets_and_what_was_tried(tables) -> None:
    values = result()
    values["regime_a"]["methods"]["exact"]["miou"] = number(0.5)
    text = tables.TABLES["evaluation_targets"][2](values)
    assert "1000 test scenes" in text and "| reached |" in text and "| missed |" in text
    tried = tables.TABLES["evaluation_tried"][2](
        {"caption": "On validation scenes.", "columns": ["what", "mIoU"], "rows": [{"what": "B = 1.5", "mIoU": "61.0"}]}
    )
    assert tried == "On validation scenes.\n\n| what | mIoU |\n| --- | --- |\n| B = 1.5 | 61.0 |"


def test_scores_that_were_tried(tables) -> None:
    found = {"model": "scenes-32", "scenes": 40, "runs": 20, "used": 0.3,
             "rows": [{"score": "contrast", "one step, all words": number(0.78)}]}  # fmt: skip
    text = tables.TABLES["evaluation_scores"][2](found)
    assert "40 validation scenes" in text and "20 pictures" in text and "In use: tint 0.3." in text
    assert text.endswith("| score | one step, all words |\n| --- | --- |\n| contrast | 0.78 [0.76, 0.80] |")


def test_a_model_in_short_has_the_last_moment_of_missing_words_alone(tables) -> None:
    text = tables.TABLES["evaluation_scenes_64"][2](result())
    assert "Natural misses, after step 25 of 25" in text and "Induced misses, after step 25 of 25" in text
    assert "after step 10 of 25" not in text and "exact contributions (ours)" in text and "named objects drawn" in text


def test_parts_that_were_not_run_say_so(tables) -> None:
    for name in ("regime_a", "regime_b", "faithfulness", "missing", "quality", "axioms"):
        assert tables.TABLES[f"evaluation_{name}"][2]({}) == "Not yet measured."
