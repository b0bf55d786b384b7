"""Faithfulness of all methods over scenes: by method and by how words were taken out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from bcos_diffusion.evaluation.judgement import Judged, summarise
from bcos_diffusion.evaluation.setup import Record
from bcos_diffusion.evaluation.summary.methods import names, ran

HEADLINE = "mean_over_images_all"
"""Which words are ranked for the number that stands for a method: all of a prompt, the mean over prompts."""


def faithfulness(records: Sequence[Record]) -> dict[str, Any]:
    """Of each method: ``scenes``; by removal its measures, of which ``spearman_token`` is :data:`HEADLINE` and
    ``spearman_token_by_words`` has all; and ``curves`` of words dropped."""
    found: dict[str, Any] = {}
    for model, method, name in names(records):
        kept = [r[model]["methods"][method].get("faithfulness") for r in ran(records, model, method)]
        units = [unit for unit in kept if unit]
        if units:
            found[name] = {"scenes": len(units)} | {how: _summary([unit[how] for unit in units]) for how in units[0]}
            found[name]["curves"] = found[name]["drop"].pop("curves")
            for how in units[0]:
                found[name][how].pop("curves", None)
    return found


def _summary(units: Sequence[Record]) -> dict[str, Any]:
    names = [field.name for field in fields(Judged)]
    summary = summarise([Judged(**{name: _with_nan(unit[name]) for name in names}) for unit in units])
    by_words = summary.pop("spearman_token")
    curves = {
        kind: {"x": np.linspace(0, 1, len(y)).tolist() if y else [], "y": y} for kind, y in summary["curves"].items()
    }
    return summary | {"spearman_token": by_words[HEADLINE], "spearman_token_by_words": by_words, "curves": curves}


def _with_nan(values: Any) -> Any:
    """What a record keeps as null, as NaN again."""
    if isinstance(values, list):
        return [_with_nan(value) for value in values]
    return math.nan if values is None else values
