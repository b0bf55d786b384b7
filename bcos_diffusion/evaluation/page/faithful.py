"""Does an explanation say what would change: scores and maps against the true effect of taking a word away."""

from __future__ import annotations

from typing import Any

from bcos_diffusion.evaluation.page.compare import differences, table
from bcos_diffusion.evaluation.page.measures import EDITS, FAITHFULNESS, ORACLE, TWIN, label
from bcos_diffusion.evaluation.page.results import floats, number_at, part
from bcos_diffusion.evaluation.page.where import charted, labels, level_table, numbers, style
from bcos_diffusion.page.section import Chart, Line, Section, Table

TITLES = {"one_step": "one step", "whole_run": "whole runs"}
CEILING = "ceiling"


def section(result: Any) -> Section:
    """A table for each regime and way to take a word away, and the curves of deletion and insertion."""
    text = (
        "The true effect of a word is |x̂(c) − x̂(c without it)| at fixed noise. “Leave one out” measures just that,"
        " by dropping the word, so it is the oracle and takes no part in the comparison."
    )
    scores = (
        "A score is an L2 norm over pixels: for attention and |gradient| of the map; for contributions and the other"
        " gradients of |x̂(c) − x̂(∅)|, each pixel dealt out to the words by their colour there beyond the tint that each"
        " gives to the whole picture."
    )
    found = part(result, "faithfulness") or {}
    tables, charts = [], []
    for regime, title in TITLES.items():
        rows = found.get(regime) or {}
        for edit, meaning in EDITS.items():
            kept = {method: row[edit] for method, row in rows.items() if isinstance(row.get(edit), dict)}
            if kept:
                caption = f"Faithfulness, {title}; {meaning} ({edit})"
                tables.append(table(caption, tuple(FAITHFULNESS.values()), numbers(kept, FAITHFULNESS),
                                    judges=(ORACLE, ORACLE + TWIN), labels=labels(rows)))  # fmt: skip
        if regime == "one_step":
            tables += [*_levels(rows, found.get(CEILING)), *_ahead(rows, found.get("differences"))]
        charts += _charts(rows, title)
    missing = "" if tables else "this part was not run"
    return Section("faithfulness", "Faithfulness", (text, scores), tuple(tables), tuple(charts), missing=missing)


def _levels(rows: Any, ceiling: Any) -> list[Table]:
    """How well words are ranked by noise level, beside the best that a score can that is 0 for words of no value."""
    if not ceiling:
        return []
    rows = rows | {CEILING: ceiling | {"label": "the effects of words that carry a value, 0 for others"}}
    measure = FAITHFULNESS["spearman_token"]
    overall = {method: number_at(row, "drop", measure.key) for method, row in rows.items()}
    return [level_table(rows, measure, (ORACLE, ORACLE + TWIN, CEILING), overall)]


def _ahead(rows: Any, found: Any) -> list[Table]:
    """How far ours is ahead of each rival in ranking words."""
    if not found:
        return []
    measure = FAITHFULNESS["spearman_token"]
    note = "Paired by scene, on those that both methods ran on and whose captions have three words of content or more."
    return [differences(f": {measure.label}, one step", found, [measure], note, labels(rows))]


def _charts(rows: Any, title: str) -> list[Chart]:
    found = []
    for kind, what in (("deletion", "removed"), ("insertion", "put back")):
        lines = tuple(
            Line(label(method), floats(curve.get("x")), floats(curve.get("y")), style(method),
                 number_at(row, "drop", kind).text(1, 3))
            for method, row in charted(rows).items() if (curve := part(row, "curves", kind))
        )  # fmt: skip
        if lines:
            top = max((y for line in lines for y in line.y if y == y), default=1.0)
            found.append(Chart(f"{kind.capitalize()}, {title}", f"share of words {what}, the most relevant first",
                               "change of the prediction", lines, y_range=(0.0, max(1.0, top))))  # fmt: skip
    return found
