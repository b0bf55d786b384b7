"""The code of documentation pages that say so runs as it stands, block after block."""

import importlib.util
import re
from pathlib import Path

import matplotlib
import pytest

FOLDER = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"(?:<!-- needs (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["classifiers.md"])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((FOLDER / page).read_text(encoding="utf-8"))
    assert len(blocks) >= 3
    namespace: dict[str, object] = {}
    for number, (package, code) in enumerate(blocks):
        if not package or importlib.util.find_spec(package) is not None:
            exec(compile(code, f"{page} block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", sorted(path.name for path in FOLDER.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    text = (FOLDER / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert all((FOLDER / link).exists() for link in links)
