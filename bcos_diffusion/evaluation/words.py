"""Which group a word of a caption belongs to, and prompts from which single words are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from bcos_diffusion.scenes import COLOURS, NOUNS
from bcos_diffusion.scenes.lexicon import plural
from bcos_diffusion.text import TextBatch
from bcos_diffusion.text.function_words import ARTICLES, FUNCTION_WORDS, PREPOSITIONS
from bcos_diffusion.text.words import hide_words

GROUPS = ("object", "colour", "relation", "function", "other")
SINGULAR = {form: noun for noun in NOUNS for form in (noun, plural(noun))}
"""Every object word, singular or plural, to its noun."""
OBJECTS = frozenset(SINGULAR)
RELATIONS = frozenset({"left", "right", "above", "below"})


def group(word: str) -> str:
    """Object, colour, relation, function (articles and other prepositions) or other (such as "background")."""
    if word in OBJECTS:
        return "object"
    if word in COLOURS:
        return "colour"
    if word in RELATIONS:
        return "relation"
    return "function" if word in ARTICLES | PREPOSITIONS else "other"


def named_relation(words: Sequence[str]) -> tuple[str, str, str] | None:
    """The relation that a caption of two nouns names, and the two in order; None where it says nothing of the kind."""
    named = [SINGULAR[word] for word in words if word in OBJECTS]
    relation = next((word for word in words if word in RELATIONS), None)
    return None if relation is None or len(named) != 2 else (relation, named[0], named[1])


def stands(relation: str, first: str, second: str, centres: Mapping[str, tuple[float, float]]) -> bool:
    """Whether the first noun stands as the relation says of the second; False where one of them is nowhere.

    centres: row and column of each noun that is there.
    """
    if not {first, second} <= centres.keys():
        return False
    axis = 1 if relation in ("left", "right") else 0
    here, there = centres[first][axis], centres[second][axis]
    return here < there if relation in ("left", "above") else here > there


def is_content(word: str) -> bool:
    """Whether a word may carry a value (function words steer alone)."""
    return word[0].isalnum() and word not in FUNCTION_WORDS


def without_each_word(batch: TextBatch) -> TextBatch:
    """One row per word of a prompt, with that word hidden and all others in their places. batch: one row."""
    return hide_words(batch, torch.eye(len(batch.words[0]), dtype=torch.bool, device=batch.mask.device))
