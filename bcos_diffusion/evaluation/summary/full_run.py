"""Whole runs over prompts: budget, mass by group of words, what relevance says of effects, colours and objects."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import fields
from typing import Any

from bcos_diffusion.evaluation.faithfulness import WordEffect, faithfulness
from bcos_diffusion.evaluation.setup import Record
from bcos_diffusion.evaluation.statistics import bootstrap, mean, ratio
from bcos_diffusion.evaluation.words import GROUPS

ORIGINS = ("tokens", "x_T", "time", "other")
SMALL = frozenset({"function", "relation"})


def full_run(records: Sequence[Record]) -> dict[str, Any]:
    """All of the sections below."""
    shares = budget(records)
    return {
        "prompts": len(records),
        "budget": shares,
        "axioms": {"completeness": shares["worst_completeness"], "mass_of_function_words": largest_silent(records)},
        "mass": mass_by_group(records),
        "relevance_and_effect": faithfulness([[word_effects(record)] for record in records]),
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


def word_effects(record: Record) -> list[WordEffect]:
    """The words of a record as what their relevance and effect are compared by."""
    names = [field.name for field in fields(WordEffect)]
    return [WordEffect(**{name: word[name] for name in names}) for word in record["words"]]


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
