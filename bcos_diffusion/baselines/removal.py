"""Three ways to take words out of a prompt, each of which asks another question.

"drop": the tokens are hidden, as training hides some: what if the word were not there? Other words are read in its
absence. "null": the word is attended to as before, its key is kept, but its value is 0: what if it said nothing? It is
the removal that leaves all that steers in place; words that carry no value change nothing. "swap": another word of the
same kind stands in its place, drawn by a seed: what does it say that others of its kind do not? A caption stays as
likely as it was.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bcos_diffusion.baselines.subject import Subject
from bcos_diffusion.job import join
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.scenes.kinds import stand_ins
from bcos_diffusion.text import LAYOUT
from bcos_diffusion.text.words import hide_words, word_positions

REMOVALS = ("drop", "null", "swap")


def check_removal(how: str) -> str:
    """Return ``how``. Raises ValueError for an unknown way."""
    if how not in REMOVALS:
        raise ValueError(f"removal must be one of {REMOVALS}, got {how!r}")
    return how


@torch.no_grad()
def without(subject: Subject, removed: Tensor, how: str, seed: int = 0) -> Conditioning:
    """What the U-Net reads of a prompt with words taken out: one row per row of ``removed`` ``[M, words]`` bool.

    seed: of the words that stand in for those that are swapped; start, end and padding are never swapped. Raises
    ValueError for an unknown way, and for a word to swap that no other can stand in for.
    """
    model, batch, count = subject.pipeline.model, subject.batch, len(removed)
    removed = removed.to(batch.mask.device)
    if check_removal(how) == "drop":
        return model.condition(hide_words(batch, removed))
    if how == "null":
        kept = ~(removed[:, :, None] & word_positions(batch)).any(1)  # [M, L]
        text = subject.text
        keys, mask = text.keys.expand(count, -1, -1), text.mask.expand(count, -1)
        return Conditioning(text.values * kept[:, :, None].to(text.values.dtype), keys, mask)
    others = replacements(subject.words, seed, subject.pipeline.default_size[0]) if removed.any() else subject.words
    prompts = [_prompt(subject.words, others, row) for row in removed.tolist()]
    # One by one, since the batch a prompt is read in may change the last bit of what is read.
    return join([model.condition(model.tokenizer.encode([prompt]).to(batch.mask.device)) for prompt in prompts])


def without_each(subject: Subject, how: str, seed: int = 0) -> Conditioning:
    """One row per word of the prompt, without it."""
    return without(subject, torch.eye(len(subject.words), dtype=torch.bool), how, seed)


def replacements(words: list[str], seed: int, size: int = 32) -> list[str]:
    """Another word of the same kind for each word, none of which the prompt has; the same for a seed on every machine.

    size: of the pictures, which decides the nouns. Where the prompt has all words of a kind, one of them is taken. What
    belongs to the layout stays.
    """
    found = []
    for number, word in enumerate(words):
        if word in LAYOUT:
            found.append(word)
            continue
        others = stand_ins(word, size)
        new = [other for other in others if other not in words] or others
        draw = np.random.Generator(np.random.PCG64([seed, number]))
        found.append(new[int(draw.integers(len(new)))])
    return found


def _prompt(words: list[str], others: list[str], swapped: list[bool]) -> str:
    chosen = [other if swap else word for word, other, swap in zip(words, others, swapped, strict=True)]
    return " ".join(word for word in chosen if word not in LAYOUT)
