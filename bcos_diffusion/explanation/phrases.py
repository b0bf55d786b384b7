"""Which tokens speak together: the pieces of a word, and the words of a phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bcos_diffusion.explanation.trace import Source
from bcos_diffusion.text import TextBatch


@dataclass(frozen=True)
class Group:
    """A word, or several words that are explained as one part, with its tokens."""

    text: str
    tokens: tuple[Source, ...]
    negative: bool = False


def groups(batch: TextBatch, phrases: Sequence[str] = ()) -> tuple[Group, ...]:
    """The words of a prompt (row 0) and its negative (row 1), in order; those of a phrase are one group.

    A phrase is found wherever its words stand beside each other; every place is a group of its own. Where phrases
    overlap, the first in the prompt wins, and of those that begin together the longest.
    """
    wanted = sorted({_split(phrase) for phrase in phrases}, key=len, reverse=True)
    found: list[Group] = []
    for row, words in enumerate(batch.words):
        tokens: list[list[Source]] = [[] for _ in words]
        for position, word in enumerate(batch.word_index[row].tolist()):
            if word >= 0:
                tokens[word].append(Source(row, position))
        at = 0
        while at < len(words):
            count = next((len(phrase) for phrase in wanted if _stands_at(phrase, words, at)), 1)
            members = tuple(source for word in tokens[at : at + count] for source in word)
            found.append(Group(" ".join(words[at : at + count]), members, negative=row == 1))
            at += count
    return tuple(found)


def require_phrases(batch: TextBatch, phrases: Sequence[str]) -> None:
    """Raise ValueError for phrases that neither a prompt nor its negative has."""
    spoken = list(batch.words)
    missing = [p for p in phrases if not any(_stands_at(_split(p), w, at) for w in spoken for at in range(len(w)))]
    if missing:
        named = ", ".join(map(repr, missing))
        said = " ".join(word for words in spoken for word in words)
        raise ValueError(f"the prompt does not have {named} as words beside each other; its words: {said}")


def _split(phrase: str) -> tuple[str, ...]:
    words = tuple(phrase.lower().split())
    if not words:
        raise ValueError("a phrase is empty; write at least one word")
    return words


def _stands_at(phrase: tuple[str, ...], words: Sequence[str], at: int) -> bool:
    return tuple(word.lower() for word in words[at : at + len(phrase)]) == phrase
