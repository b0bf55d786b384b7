"""Docstrings are plain sentences: a ``|`` in them stands for itself, as in |cos|, and is no markup.

Signatures are Python: what a dataclass makes anew for each object is written ``...``, not ``<factory>``.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.*?``)", re.DOTALL)


def escape(app: Sphinx, what: str, name: str, described: Any, options: Any, lines: list[str]) -> None:
    parts = LITERAL.split("\n".join(lines))
    parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def without_factories(
    app: Sphinx, what: str, name: str, described: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    return signature and signature.replace("<factory>", "..."), returns


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-process-signature", without_factories)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
