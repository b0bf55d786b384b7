"""Sections as one HTML page: no script, no file but itself, nothing that is told by colour alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from bcos_diffusion.page.curves import draw
from bcos_diffusion.page.section import Cell, Example, Picture, Section, Sheet, Table
from bcos_diffusion.page.style import STYLE

SIGNS = {
    "best": ("★", "best"),
    "close": ("≈", "not apart from the best"),
    "beaten": ("▼", "ours, and another method is better"),
    "reached": ("✓", "reached"),
    "missed": ("✗", "missed"),
    "unknown": ("–", "not measured"),
}
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
"""


def page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page. lead: paragraphs above the contents."""
    contents = "".join(f'<li><a href="#{escape(s.key)}">{escape(s.title)}</a></li>' for s in sections)
    body = "\n".join(_section(section, 2) for section in sections)
    return (
        _HEAD.format(title=escape(title), style=STYLE)
        + '<body>\n<a class="skip" href="#main">To the results</a>\n'
        + f"<header><h1>{escape(title)}</h1>{_paragraphs(lead)}"
        + f'<nav aria-label="Contents"><ol>{contents}</ol></nav></header>\n'
        + f'<main id="main">\n{body}\n</main>\n</body>\n</html>\n'
    )


def _section(section: Section, level: int) -> str:
    heading = f"<h{level}>{escape(section.title)}</h{level}>"
    missing = f'<p class="missing"><b>Not in this report:</b> {escape(section.missing)}</p>' if section.missing else ""
    charts = "".join(map(draw, section.charts))
    parts = [
        heading,
        missing,
        _paragraphs(section.text),
        *map(_table, section.tables),
        f'<div class="charts">{charts}</div>' if charts else "",
        *(_sheet(sheet, level + 1) for sheet in section.sheets),
        _terms(section.terms),
        *(f'<pre tabindex="0"><code>{escape(text)}</code></pre>' for text in section.code),
        *(_section(child, level + 1) for child in section.children),
    ]
    return f'<section id="{escape(section.key)}">' + "\n".join(part for part in parts if part) + "</section>"


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads)
    rows = "".join(f"<tr>{_row(row)}</tr>" for row in table.rows)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    name, kind = escape(table.caption), ' class="prose"' if table.prose else ""
    whole = (
        f'<div class="scroll" role="region" aria-label="{name}" tabindex="0"><table{kind}><caption>{name}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )
    return f"<details><summary>{name}</summary>{whole}</details>" if table.folded else whole


def _row(row: Sequence[Cell | str]) -> str:
    first, *rest = (cell if isinstance(cell, Cell) else Cell(cell) for cell in row)
    return f'<th scope="row">{_content(first)}</th>' + "".join(f"<td{_class(c)}>{_content(c)}</td>" for c in rest)


def _class(cell: Cell) -> str:
    return f' class="{cell.mark}"' if cell.mark else ""


def _content(cell: Cell) -> str:
    sign = ""
    if cell.mark:
        symbol, meaning = SIGNS[cell.mark]
        sign = (
            f'<span class="sign" role="img" aria-label="{escape(meaning)}" title="{escape(meaning)}">{symbol}</span> '
        )
    interval = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    return f"{sign}{escape(cell.text)}{interval}"


def _sheet(sheet: Sheet, level: int) -> str:
    examples = "".join(_example(example, level + 1) for example in sheet.examples)
    text = f"<p>{escape(sheet.text)}</p>" if sheet.text else ""
    return f'<div class="sheet"><h{level}>{escape(sheet.title)}</h{level}>{text}{examples}</div>'


def _example(example: Example, level: int) -> str:
    figures = "".join(
        f"<figure>{_image(picture)}<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in example.pictures
    )
    text = f"<p>{escape(example.text)}</p>" if example.text else ""
    top = f'<div class="pictures">{figures}</div>' if figures else ""
    return f"<article><h{level}>{escape(example.title)}</h{level}>{text}{top}{_grid(example)}</article>"


def _grid(example: Example) -> str:
    if not example.rows:
        return ""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in (example.corner, *example.columns))
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{_image(p)}<small>{escape(p.caption)}</small></td>" for p in pictures)
        + "</tr>"
        for name, pictures in example.rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{escape(example.title)}" tabindex="0"><table class="maps">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _image(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    wide = ' class="wide"' if picture.wide else ""
    return f'<img{wide} src="data:image/png;base64,{data}" alt="{escape(picture.alt)}" loading="lazy">'


def _terms(terms: Sequence[tuple[str, str]]) -> str:
    if not terms:
        return ""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in terms) + "</dl>"
