"""Where the words of a caption should be seen: objects where they are visible, a background's colour around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.evaluation.words import group

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """The pixels ``[H, W]`` that are one word's. word: its number in the caption; kind: "object" or "colour"."""

    word: int
    kind: str
    mask: Mask


def regions(words: Sequence[str], masks: Mapping[str, Mask]) -> list[Region]:
    """The regions of the object and colour words of a caption, in order; words with no mask or an empty one have none.

    masks: by word, as :attr:`~bcos_diffusion.scenes.dataset.Scene.masks` has them.
    """
    return [
        Region(number, group(word), np.asarray(masks[word], bool))
        for number, word in enumerate(words)
        if group(word) in ("object", "colour") and word in masks and np.any(masks[word])
    ]


def described(found: Sequence[Region]) -> list[dict[str, Any]]:
    """Regions as a record keeps them: how many pixels, and not which."""
    return [{"word": r.word, "kind": r.kind, "pixels": int(r.mask.sum())} for r in found]
