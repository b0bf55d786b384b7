"""Whole runs over prompts: budget, mass by group of words, what relevance says of effects, colours and objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.evaluation.setup import Record
from bcos_diffusion.evaluation.statistics import bootstrap, mean, ratio, spearman
from bcos_diffusion.evaluation.words import GROUPS, is_content

ORIGINS = ("tokens", "x_T", "time", "other")
MEASURES = ("mass", "mean_free", "norm")
FEWEST_WORDS = 3
SMALL = frozenset({"function", "relation"})
Keep = Callable[[Record], bool]


def full_run(records: Sequence[Record]) -> dict[str, Any]:
    """All of the sections below."""
    shares = budget(records)
    return {
        "prompts": len(records),
        "budget": shares,
        "axioms": {"completeness": shares["worst_completeness"], "mass_of_function_words": largest_silent(records)},
        "mass": mass_by_group(records),
        "relevance_and_effect": correlations([record["words"] for record in records]),
        "background": colours(records),
        "objects_drawn": objects([_judged(record["objects"]) for record in records]),
        "objects_in_real_scenes": objects([_judged(record["real"]) for record in records]),
    }


def budget(records: Sequence[Record]) -> dict[str, Any]:
    """Mean shares of the image's mass by origin, and the worst completeness error."""
    shares = {name: bootstrap([record["budget"][name] for record in records], mean) for name in ORIGINS}
    return shares | {
        "lowest_tokens": min(record["budget"]["tokens"] for record in records),
        "worst_completeness": max(record["completeness"] for record in records),
        "reconstruction_mse": bootstrap([record["reconstruction_mse"] for record in records], mean),
    }


def mass_by_group(records: Sequence[Record]) -> dict[str, Any]:
    """Mean absolute relevance (share of a prompt) per word and per token, |mass| and effect, by group.

    ``object_over_function`` divides mean |mass| of object words by that of articles and prepositions, words
    of place included; it is infinite where these carry exactly 0.
    """
    result: dict[str, Any] = {
        name: {
            "words": sum(word["group"] == name for record in records for word in record["words"]),
            "share_per_word": bootstrap([_sums(record, {name}, "share") for record in records], ratio),
            "share_per_token": bootstrap([_sums(record, {name}, "share", "tokens") for record in records], ratio),
            "mass_per_word": bootstrap([_sums(record, {name}, "mass") for record in records], ratio),
            "effect_per_word": bootstrap([_sums(record, {name}, "effect") for record in records], ratio),
        }
        for name in GROUPS
    }
    for key, measure in (("object_over_function", "mass"), ("object_over_function_effect", "effect")):
        pairs = [(_sums(record, {"object"}, measure), _sums(record, SMALL, measure)) for record in records]
        result[key] = bootstrap(pairs, _times)
    result["function_words_carry_exactly_0"] = largest_silent(records) == 0
    return result


def largest_silent(records: Sequence[Record]) -> float:
    """The largest norm of what a function word contributed: 0 where such words have no value, by construction."""
    words = [word for record in records for word in record["words"]]
    return max((float(word["norm"]) for word in words if word["group"] in SMALL), default=0.0)


def _sums(record: Record, groups: Set[str], above: str, below: str | None = None) -> tuple[float, float]:
    words = [word for word in record["words"] if word["group"] in groups]
    count = len(words) if below is None else math.fsum(word[below] for word in words)
    return math.fsum(word[above] for word in words), float(count)


def _times(pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> float:
    """How many times larger the first mean is than the second, both as (sum, count) per prompt."""
    first, second = ratio([a for a, _ in pairs]), ratio([b for _, b in pairs])
    return first / second if second else (math.inf if first > 0 else math.nan)


KEYS: dict[str, tuple[bool, Keep]] = {
    "mean_over_prompts_content": (False, lambda word: is_content(word["text"])),
    "pooled_content": (True, lambda word: is_content(word["text"])),
    "pooled_objects": (True, lambda word: bool(word["group"] == "object")),
    "mean_over_prompts_all": (False, lambda word: True),
    "pooled_all": (True, lambda word: True),
}
"""Which words, and whether they are ranked within their prompt or all together. Among objects alone colour words, which
change most pixels, cannot help a correlation."""


def correlations(prompts: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """Spearman's rho of each measure of a word with the effect of dropping it, of prompts of three content words."""
    rich = [words for words in prompts if sum(is_content(word["text"]) for word in words) >= FEWEST_WORDS]
    result: dict[str, Any] = {"prompts": len(prompts), "prompts_with_3_content_words": len(rich)}
    for measure in MEASURES:
        result[measure] = {
            key: bootstrap([_pairs(words, keep, measure) for words in prompts], _pooled)
            if pooled
            else bootstrap([spearman(*_pairs(words, keep, measure).T) for words in rich], mean)
            for key, (pooled, keep) in KEYS.items()
        }
    return result


def _pairs(words: Sequence[Record], keep: Keep, measure: str) -> NDArray[np.float64]:
    return np.array([(word[measure], word["effect"]) for word in words if keep(word)], np.float64).reshape(-1, 2)


def _pooled(drawn: Sequence[NDArray[np.float64]]) -> float:
    return spearman(*np.concatenate(drawn).T)


def colours(records: Sequence[Record]) -> dict[str, Any]:
    """How far backgrounds are from the colour named (RMS over rgb), and how often it is the nearest of all."""
    judged = [record for record in records if record["colour_error"] is not None]
    return {
        "prompts": len(judged),
        "error": bootstrap([record["colour_error"] for record in judged], mean),
        "nearest_is_named": bootstrap([float(record["colour_right"]) for record in judged], mean),
    }


def objects(judged: Sequence[tuple[int, int, bool | None]]) -> dict[str, Any]:
    """Recall of named objects and of their relation. judged: found, named and relation per picture."""
    named = [(float(found), float(count)) for found, count, _ in judged if count]
    related = [float(holds) for *_, holds in judged if holds is not None]
    return {
        "pictures": len(named),
        "found": bootstrap(named, ratio),
        "found_when_alone": bootstrap([(found, count) for found, count in named if count == 1], ratio),
        "pictures_with_a_relation": len(related),
        "relation_holds": bootstrap(related, mean),
    }


def _judged(kept: Record) -> tuple[int, int, bool | None]:
    return kept["found"], kept["named"], kept["relation"]
