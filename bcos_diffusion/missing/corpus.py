"""Prompts that name more than a model can always draw: what missing concepts are calibrated and measured on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bcos_diffusion.evaluation.words import OBJECTS
from bcos_diffusion.scenes import COLOURS, nouns
from bcos_diffusion.scenes.captions import INVERSE, write
from bcos_diffusion.scenes.dataset import SPLITS, held_out_pairs

# Shares of pictures that name 2, 3 and 4 different objects; the rest names several of one kind.
_NAMED = {2: 0.3, 3: 0.37, 4: 0.23}
_SEEDS_PER_SPLIT = 1_000_000


@dataclass(frozen=True)
class Asked:
    """A prompt and the seed that it is drawn from."""

    prompt: str
    seed: int


def asked(split: str, count: int, seed: int = 0, size: int = 32) -> list[Asked]:
    """``count`` prompts of two to four objects, or of several of one kind, in the forms of captions.

    size: of the pictures, which decides the nouns.

    split: "validation" or "test", which share neither a prompt nor a seed; (colour, noun) pairs that training never
    shows are in the test split alone. Raises ValueError for another split or a count below 1.
    """
    if split not in SPLITS[1:] or count < 1:
        raise ValueError(f"split must be one of {SPLITS[1:]} and count at least 1, got {split!r} and {count}")
    number = SPLITS.index(split)
    rng = np.random.Generator(np.random.PCG64([seed, number, 6]))
    known = {a.prompt for a in asked("validation", count, seed, size)} if split == "test" else set()
    found: list[Asked] = []
    while len(found) < count:
        text = _prompt(rng, nouns(size), held_out=split == "test")
        if text not in known and any(word in OBJECTS for word in text.split()):
            known.add(text)
            found.append(Asked(text, _SEEDS_PER_SPLIT * number + len(found)))
    return found


def _prompt(rng: np.random.Generator, known: tuple[str, ...], held_out: bool) -> str:
    draw, several = rng.random(), 1
    distinct = next((n for n, share in _cumulated() if draw < share), 1)
    if distinct == 1:
        several = int(rng.integers(2, 5))
    chosen = rng.choice(known, distinct, replace=False).tolist()
    never = set() if held_out else {c for c, n in held_out_pairs() if n in chosen}
    colour = str(rng.choice([c for c in sorted(COLOURS) if c not in never]))
    relation = str(rng.choice(sorted(INVERSE)))
    return write(rng, chosen, several, relation, colour)


def _cumulated() -> list[tuple[int, float]]:
    shares = np.cumsum(list(_NAMED.values()))
    return list(zip(_NAMED, shares.tolist(), strict=True))
