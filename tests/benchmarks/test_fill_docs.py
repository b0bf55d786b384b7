"""Every table of the docs is what its results say: no number is typed by hand."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fill_docs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # scripts import one another by their bare names
    return importlib.import_module("fill_docs")


def test_tables_of_the_docs_are_those_of_the_results(fill_docs) -> None:
    for name, (page, source, render) in fill_docs.TABLES.items():
        path = ROOT / "benchmarks" / "results" / source
        expected = render(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else "Not yet measured."
        text = (ROOT / page).read_text(encoding="utf-8")
        found = re.search(rf"<!-- {name} table -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
        assert found, f"{page} has no table of {name}"
        assert found[1] == expected, f"{page}: run benchmarks/fill_docs.py"
