"""From results to the page: which sections there are, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bcos_diffusion.evaluation.page import absent, axioms, faithful, glossary, overview, quality, reproduce, where
from bcos_diffusion.page import html
from bcos_diffusion.page.section import Section, Sheet


def sections(result: Any, sheets: Sequence[Sheet] = ()) -> list[Section]:
    """All sections of a result, as measured or read from JSON; parts that it lacks say so."""
    examples = Section(
        "examples", "Examples",
        ("Red: the word pushes the pixel towards its colour; blue: away from it. All maps of one method in one scene"
         " are on one scale; methods are each on their own.",) if sheets else (),
        sheets=tuple(sheets), missing="" if sheets else "no examples were drawn",
    )  # fmt: skip
    return [
        overview.targets_section(result),
        *where.sections(result),
        faithful.section(result),
        absent.section(result),
        quality.section(result),
        axioms.section(result),
        examples,
        overview.measured_section(result),
        glossary.section(),
        reproduce.section(result),
    ]


def report(result: Any, sheets: Sequence[Sheet] = ()) -> str:
    """The whole page as HTML."""
    return html.page("How explanations hold up against ground truth", overview.lead(result), sections(result, sheets))
