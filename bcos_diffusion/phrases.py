"""Which tokens speak together: the pieces of a word, and the words of a phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bcos_diffusion.text import TextBatch
from bcos_diffusion.trace import Source


@dataclass(frozen=True)
class Group:
    """A word, or several words that are explained as one part, with its tokens."""

    text: str
    tokens: tuple[Source, ...]
    negative: bool = False


def groups(batch: TextBatch, phrases: Sequence[str] = ()) -> tuple[Group, ...]:
    """The words of a prompt (row 0) and its negative (row 1), in order; those of a phrase are one group.

    A phrase is found wherever its words stand beside each other; every place is a group of its own. Where phrases
    overlap, the longer one wins. Raises ValueError for a phrase that the prompts do not have.
    """
    wanted = sorted({tuple(phrase.lower().split()) for phrase in phrases}, key=lambda words: (-len(words), words))
    missing = set(wanted)
    found: list[Group] = []
    for row, words in enumerate(batch.words):
        tokens: list[list[Source]] = [[] for _ in words]
        for position, word in enumerate(batch.word_index[row].tolist()):
            if word >= 0:
                tokens[word].append(Source(row, position))
        at = 0
        while at < len(words):
            here = [p for p in wanted if p and tuple(w.lower() for w in words[at : at + len(p)]) == p]
            missing -= set(here)
            count = len(here[0]) if here else 1
            members = tuple(source for word in tokens[at : at + count] for source in word)
            found.append(Group(" ".join(words[at : at + count]), members, negative=row == 1))
            at += count
    if missing:
        spoken = " ".join(word for words in batch.words for word in words)
        named = ", ".join(repr(" ".join(phrase)) for phrase in sorted(missing))
        raise ValueError(f"the prompt does not have {named} as words beside each other; its words: {spoken}")
    return tuple(found)
