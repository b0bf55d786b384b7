"""How Sphinx builds the site: ``sphinx-build -W --keep-going -n docs docs/_build``. Nothing is fetched."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "bcos-kernels"
author = "the bcos-kernels authors"
project_copyright = "2026, the bcos-kernels authors"
version = release = installed_version("bcos-kernels")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "existing_names",
    "mathml",
    "plain_docstrings",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
highlight_language = "none"

autodoc_typehints = "signature"
maximum_signature_line_length = 90
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
nitpick_ignore = [("py:class", "Axes"), ("py:class", "AxesImage")]  # matplotlib's, imported for type checkers alone
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "bcos-kernels"
