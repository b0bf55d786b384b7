"""What the site's own extensions do, on a small site: formulas without scripts, and names, which must exist."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install '.[docs]'")
pytest.importorskip("myst_parser", reason="MyST is not installed: pip install '.[docs]'")

EXTENSIONS = Path(__file__).parents[2] / "docs" / "_extensions"
CONFIGURATION = f"""
import sys
sys.path[:0] = [{str(EXTENSIONS)!r}, "."]
extensions = ["myst_parser", "sphinx.ext.autodoc", "existing_names", "mathml", "plain_docstrings"]
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"
html_theme = "basic"
"""
MODULE = '''
from dataclasses import dataclass, field
from pathlib import Path

Box = tuple[int, int]
"""An alias, documented."""


@dataclass
class Named:
    """Takes |x| and :func:`helper`, :class:`Path`, :class:`inner.Other`{wrong}."""

    values: dict[str, tuple[int, int]] = field(default_factory=dict)


def helper() -> "Named":
    """Exists, and is on no page."""
    return Named()
'''
PAGE = r"""
# A page

$\sqrt{x^2}$ and

$$
\frac{a}{b}
$$

```{eval-rst}
.. autoclass:: shown.Named
.. autodata:: shown.Box
.. automodule:: pack.inner
   :members: Other
```
"""


def build(folder: Path, wrong: str = "", page: str = PAGE) -> subprocess.CompletedProcess[str]:
    (folder / "pack").mkdir(parents=True)
    (folder / "conf.py").write_text(CONFIGURATION, encoding="utf-8")
    (folder / "index.md").write_text(page, encoding="utf-8")
    (folder / "shown.py").write_text(MODULE.replace("{wrong}", wrong), encoding="utf-8")
    (folder / "pack" / "__init__.py").touch()
    (folder / "pack" / "inner.py").write_text('class Other:\n    """Another."""\n', encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", ".", "built"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_formulas_are_mathml_and_names_that_exist_are_found(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "built" / "index.html").read_text(encoding="utf-8")
    assert page.count("<math") == 2 and "<msqrt>" in page and "<mfrac>" in page
    assert 'src="http' not in page and "|x|" in page and "factory" not in page
    signature = page.split('id="shown.Named"')[1].split("</dt>")[0]
    assert "tuple" in signature and "#shown.Box" not in signature
    assert 'href="#pack.inner.Other"' in page and "helper()" in page


@pytest.mark.parametrize(
    ("wrong", "page", "said"),
    [
        (" and :func:`nowhere`", PAGE, "nowhere"),
        ("", PAGE.replace("sqrt", "nosuchcommand"), "nosuchcommand"),
        ("", PAGE + "\n[gone](gone.md)\n", "gone.md"),
    ],
    ids=["name", "formula", "link"],
)
def test_what_is_wrong_fails_the_build(tmp_path: Path, wrong: str, page: str, said: str) -> None:
    done = build(tmp_path, wrong, page)
    assert done.returncode != 0 and said in done.stderr
