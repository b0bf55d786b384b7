"""Sentences for a scene, in many forms, none of which has a word that all others share.

With a constant word in every caption a network draws everything with that word (mathematics §6). So
articles and function words are mostly absent, order varies, and many captions are a word or two.
"""

from __future__ import annotations

import numpy as np

from bcos_diffusion.scenes.lexicon import NUMERALS, plural

INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_VOWELS = tuple("aeiou")


def write(rng: np.random.Generator, nouns: list[str], count: int, relation: str | None, colour: str) -> str:
    """A caption. nouns: distinct nouns; count: how many of the one noun; relation: of the first to the second."""
    if count > 1:
        subject = f"{NUMERALS[count - 1]} {plural(nouns[0])}" if rng.random() < 0.8 else plural(nouns[0])
    elif relation is not None and len(nouns) == 2 and rng.random() < 0.9:
        subject = _related(rng, nouns, relation)
    else:
        subject = _listed(rng, nouns)
    if rng.random() < 0.2:
        return subject
    if rng.random() < 0.06:
        return colour
    return _with_colour(rng, subject, colour)


def _article(rng: np.random.Generator, noun: str, p: float = 0.3) -> str:
    if rng.random() >= p:
        return noun
    if rng.random() < 0.3:
        return f"the {noun}"
    return f"an {noun}" if noun.startswith(_VOWELS) else f"a {noun}"


def _related(rng: np.random.Generator, nouns: list[str], relation: str) -> str:
    first, second = nouns
    if rng.random() < 0.5:
        first, second, relation = second, first, INVERSE[relation]
    first, second = _article(rng, first), _article(rng, second)
    if relation in ("left", "right"):
        link = ("{0}", "{0} of", "to the {0} of")[rng.choice(3, p=[0.35, 0.45, 0.2])].format(relation)
    else:
        link = relation
    return f"{first} {link} {second}"


def _listed(rng: np.random.Generator, nouns: list[str]) -> str:
    order = [_article(rng, nouns[i]) for i in rng.permutation(len(nouns))]
    if len(order) == 1:
        return order[0]
    glue = rng.random()
    if glue < 0.35:
        return " ".join(order)
    if glue < 0.65:
        return " , ".join(order)
    return " , ".join(order[:-1]) + " and " + order[-1]


def _with_colour(rng: np.random.Generator, subject: str, colour: str) -> str:
    background = colour if rng.random() < 0.65 else f"{colour} background"
    form = rng.choice(5, p=[0.3, 0.2, 0.15, 0.2, 0.15])
    if form == 0:
        return f"{subject} {background}"
    if form == 1:
        return f"{background} {subject}"
    if form == 2:
        return f"{background} , {subject}"
    if form == 3:
        ground = _article(rng, background, 0.5 if background.endswith("background") else 0.0)
        return f"{subject} on {ground}"
    return f"{subject} , {background}"
