"""Which captions name an object: singular or plural, without adjoining letters (Appendix D)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bcos_diffusion.scenes.lexicon import plural

PAPER = ("banana", "cat", "goat", "flamingo=flamingos,flamingoes", "penguin")


@dataclass(frozen=True)
class Named:
    """An object and every form of its name that counts."""

    name: str
    forms: tuple[str, ...]


def parse_objects(given: Sequence[str]) -> tuple[Named, ...]:
    """Objects from ``name`` (regular plural) or ``name=plural,…`` (irregular ones; ``sheep=`` has none).

    Raises ValueError for an empty list, a name without letters at its ends, or a name given twice.
    """
    if not given:
        raise ValueError("give at least one object, such as cat or goose=geese")
    objects = []
    for text in given:
        name, irregular, plurals = (part.strip() for part in unicodedata.normalize("NFC", text).partition("="))
        others = [form.strip() for form in plurals.split(",") if form.strip()] if irregular else []
        for form in (name, *others):
            if not (form[:1].isalpha() and form[-1:].isalpha()):
                raise ValueError(f"{form!r} of object {text!r} must begin and end with a letter")
        objects.append(Named(name, tuple(dict.fromkeys([name, *(others if irregular else [plural(name)])]))))
    names = [item.name.casefold() for item in objects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"objects given twice: {', '.join(twice)}")
    return tuple(objects)


class Matcher:
    """Finds objects in many captions at once, ignoring case.

    A form counts where neither neighbour is a letter of any alphabet (Unicode category L): "cat's",
    "cat2" and "black-cat" name a cat, "category", "tomcat" and "écat" do not. Captions are compared in
    composed form (NFC), so that a letter and its accent are one letter.
    """

    def __init__(self, objects: Sequence[Named]):
        self.objects = tuple(objects)
        self._each = [_pattern(item.forms) for item in objects]
        forms = [form for item in objects for form in item.forms]
        self._any = _pattern(sorted({unicodedata.normalize(kind, form) for kind in ("NFC", "NFD") for form in forms}))

    def candidates(self, captions: Any) -> NDArray[np.bool_]:
        """Which of an arrow array of captions [N] may name an object: a superset, in one pass; null is no."""
        return _mask(pc.match_substring_regex(captions, self._any))

    def named(self, captions: Sequence[str]) -> NDArray[np.bool_]:
        """Which objects each caption names, [N, objects]."""
        composed = pa.array([unicodedata.normalize("NFC", caption) for caption in captions], pa.string())
        found = [_mask(pc.match_substring_regex(composed, pattern)) for pattern in self._each]
        return np.stack(found, axis=1)


def _pattern(forms: Sequence[str]) -> str:
    # Only whether there is a match counts, so consuming the neighbours is as good as looking at them.
    return rf"(?i)(?:^|[^\p{{L}}])(?:{'|'.join(re.escape(form) for form in forms)})(?:[^\p{{L}}]|$)"


def _mask(found: Any) -> NDArray[np.bool_]:
    return pc.fill_null(found, False).to_numpy(zero_copy_only=False).astype(np.bool_)
