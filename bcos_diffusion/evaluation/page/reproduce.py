"""How to get the same numbers again."""

from __future__ import annotations

from typing import Any

from bcos_diffusion.evaluation.page.results import part
from bcos_diffusion.page.section import Section


def section(result: Any) -> Section:
    """The command line, and what it takes to repeat it."""
    command = part(result, "command")
    text = (
        "Data, noise and intervals are seeded, so the same command on the same commit, weights and versions gives the"
        " same numbers, up to the last digits that another processor rounds in its own way. report.json, beside this"
        " page, holds every number of it."
    )
    missing = "" if command else "the result does not say which command made it"
    return Section("reproduce", "How to reproduce", (text,), code=(command,) if command else (), missing=missing)
