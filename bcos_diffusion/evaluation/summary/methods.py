"""Which methods ran on which scenes, and how results call them."""

from __future__ import annotations

from collections.abc import Sequence

from bcos_diffusion.evaluation.setup import Record

EXACT = "exact"
"""The method that others are compared with."""


def names(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Every model and method, and how results call it; methods in the order of the first scene's record, which has all
    of them."""
    return [
        (model, method, method if model == "model" else f"{method}_{model}")
        for model in ("model", "twin")
        for method in dict.fromkeys(method for record in records for method in _methods(record, model))
    ]


def ran(records: Sequence[Record], model: str, method: str) -> list[Record]:
    """The records of the scenes that a method ran on, on one model ("model" or "twin")."""
    return [record for record in records if method in _methods(record, model)]


def _methods(record: Record, model: str) -> Record:
    found: Record = record.get(model, {}).get("methods", {})
    return found
