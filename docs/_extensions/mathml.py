"""Formulas as MathML, which browsers draw themselves: pages need no script and nothing from the network.

Sphinx's own renderers load MathJax from elsewhere or need LaTeX. docutils, on which Sphinx stands, converts LaTeX to
MathML; this makes it a renderer of Sphinx's.
"""

from __future__ import annotations

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator


def convert(latex: str, block: bool, location: nodes.Element) -> str:
    """LaTeX as a ``<math>`` element. Raises ExtensionError naming the place, for what the converter does not know."""
    try:
        return "".join(latex2mathml.tex2mathml(latex, as_block=block))
    except Exception as error:
        raise ExtensionError(f"{location.source}:{location.line}: cannot draw {latex!r}: {error}") from error


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(convert(node.astext(), False, node))
    raise nodes.SkipNode


def visit_displaymath(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(convert(node.astext(), True, node) + "</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
