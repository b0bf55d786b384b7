"""Faithfulness of all methods over scenes: by method and by how words were taken out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from bcos_diffusion.evaluation.faithfulness import rank_of_prompt, with_ranks
from bcos_diffusion.evaluation.judgement import Judged, of_images, summarise
from bcos_diffusion.evaluation.setup import Record
from bcos_diffusion.evaluation.statistics import bootstrap, mean
from bcos_diffusion.evaluation.summary.methods import EXACT, names, ran

HEADLINE = "mean_over_images_all"
"""Which words are ranked for the number that stands for a method: all of a prompt, the mean over prompts."""


def faithfulness(records: Sequence[Record], levels: Sequence[float] = ()) -> dict[str, Any]:
    """Of each method: ``scenes``; by removal its measures, of which ``spearman_token`` is :data:`HEADLINE` and
    ``spearman_token_by_words`` has all; ``curves`` of words dropped; and where there are several ``levels`` of noise
    ``by_level``, the ranks of words dropped at each."""
    found: dict[str, Any] = {}
    for model, method, name in names(records):
        units = _units(records, model, method)
        if units:
            judged = {how: [_judged(unit[how]) for unit in units] for how in units[0]}
            found[name] = {"scenes": len(units)} | {how: _summary(judged[how]) for how in judged}
            found[name]["curves"] = found[name]["drop"].pop("curves")
            if levels:
                found[name]["by_level"] = _by_level(judged["drop"], levels)
            for how in units[0]:
                found[name][how].pop("curves", None)
    return found


def ceiling(records: Sequence[Record], levels: Sequence[float] = ()) -> dict[str, Any]:
    """How well words could be ranked by a score that is 0 for those without a value, and right of all others.

    Which words have no value is what the exact method says; empty where it did not run. As a method of
    :func:`faithfulness`: ``scenes``, ``drop`` and ``by_level``, of ``spearman_token`` alone.
    """
    judged = [_judged(unit["drop"]) for unit in _units(records, "model", EXACT)]
    if not judged:
        return {}
    known = [replace(unit, scores=_known(unit)) for unit in judged]
    return {"scenes": len(known), "drop": _ranks(known), "by_level": _by_level(known, levels)}


def differences(records: Sequence[Record]) -> dict[str, Any]:
    """How much better the exact method ranks words dropped than each rival, paired by scene on those that both have.

    Of each rival ``scenes``, those whose words can be ranked, and ``spearman_token``; empty without the exact method.
    """
    ranks = {name: _ranks_of_scenes(records, model, method) for model, method, name in names(records)}
    exact = ranks.pop(EXACT, {})
    found = {}
    for rival, theirs in ranks.items():
        ahead = [exact[scene] - theirs[scene] for scene in exact if scene in theirs]
        if ahead:
            found[rival] = {"scenes": len(ahead), "spearman_token": bootstrap(ahead, mean)}
    return found


def _ranks_of_scenes(records: Sequence[Record], model: str, method: str) -> dict[int, float]:
    """By scene, how well a method ranks the words of its caption; scenes without a rank are left out."""
    kept = {r["scene"]: r[model]["methods"][method].get("faithfulness") for r in ran(records, model, method)}
    images = {scene: of_images(_judged(unit["drop"])) for scene, unit in kept.items() if unit}
    ranks = {scene: rank_of_prompt(unit, "score") for scene, unit in images.items() if with_ranks([unit])}
    return {scene: rank for scene, rank in ranks.items() if not math.isnan(rank)}


def _known(unit: Judged) -> list[list[float]]:
    """The effects of words that have a value, as their scores."""
    return [
        effects if any(scores) else [0.0] * len(effects)
        for scores, effects in zip(unit.scores, unit.effects, strict=True)
    ]


def _units(records: Sequence[Record], model: str, method: str) -> list[Record]:
    kept = [record[model]["methods"][method].get("faithfulness") for record in ran(records, model, method)]
    return [unit for unit in kept if unit]


def _judged(unit: Record) -> Judged:
    return Judged(**{field.name: _with_nan(unit[field.name]) for field in fields(Judged)})


def _by_level(judged: Sequence[Judged], levels: Sequence[float]) -> dict[str, Any]:
    return {str(level): _ranks(judged, at) for at, level in enumerate(levels)}


def _ranks(judged: Sequence[Judged], at: int | None = None) -> dict[str, Any]:
    """:data:`HEADLINE`, the number that stands for a method, alone: of all images, or of the one at a level."""
    images = [of_images(unit) if at is None else of_images(unit)[at : at + 1] for unit in judged]
    return {"spearman_token": bootstrap([rank_of_prompt(unit, "score") for unit in with_ranks(images)], mean)}


def _summary(judged: Sequence[Judged]) -> dict[str, Any]:
    summary = summarise(judged)
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
