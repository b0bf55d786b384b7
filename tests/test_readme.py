"""What the README tells people to paste runs as it stands."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_runs(number: int) -> None:
    exec(compile(BLOCKS[number], f"README.md block {number}", "exec"), {})


def test_there_is_python_to_run_and_its_pictures_exist() -> None:
    assert len(BLOCKS) == 3
    folder = Path(__file__).parent.parent
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures and all((folder / picture).is_file() for picture in pictures)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert all((folder / link).exists() for link in links)
