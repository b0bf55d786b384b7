"""Words that may stand in for each other in a caption: of one kind and one form."""

from __future__ import annotations

from bcos_diffusion.scenes.lexicon import COLOURS, NUMERALS, nouns, plural

_KINDS: tuple[tuple[str, ...], ...] = (
    tuple(sorted(COLOURS)),
    ("left", "right"),
    ("above", "below"),
    NUMERALS,
    ("a", "an", "the"),
    ("of", "on", "in", "and", "with", "to"),
    ("background", "picture"),
    (",", "."),
)


def stand_ins(word: str, size: int = 32) -> tuple[str, ...]:
    """The other words of a word's kind in scenes of side ``size``, sorted within it.

    Raises ValueError for a word of no known kind.
    """
    known = nouns(size)
    for kind in (known, tuple(sorted(plural(noun) for noun in known)), *_KINDS):
        if word in kind:
            return tuple(other for other in kind if other != word)
    raise ValueError(f"no word is known that could stand in for {word!r}: only words of scenes have a kind")
