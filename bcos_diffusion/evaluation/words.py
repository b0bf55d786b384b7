"""Which group a word of a caption belongs to, and prompts from which single words are missing."""

from __future__ import annotations

import torch

from bcos_diffusion.scenes import COLOURS, NOUNS
from bcos_diffusion.scenes.lexicon import plural
from bcos_diffusion.text import TextBatch
from bcos_diffusion.text.function_words import ARTICLES, FUNCTION_WORDS, PREPOSITIONS
from bcos_diffusion.text.words import hide_words

GROUPS = ("object", "colour", "relation", "function", "other")
OBJECTS = frozenset(NOUNS) | {plural(noun) for noun in NOUNS}
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


def is_content(word: str) -> bool:
    """Whether a word may carry a value (function words steer alone)."""
    return word[0].isalnum() and word not in FUNCTION_WORDS


def without_each_word(batch: TextBatch) -> TextBatch:
    """One row per word of a prompt, with that word hidden and all others in their places. batch: one row."""
    return hide_words(batch, torch.eye(len(batch.words[0]), dtype=torch.bool, device=batch.mask.device))
