"""Tables and intervals as the docs show them."""

from __future__ import annotations

from typing import Any


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table in markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def interval(measured: Any, scale: float = 1.0, digits: int = 2) -> str:
    """A value with its 95% bootstrap interval; what could not be measured has none."""
    if measured["value"] is None or isinstance(measured["value"], str):
        return str(measured["value"] or "undefined")
    value, low, high = (f"{scale * measured[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
