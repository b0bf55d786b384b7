"""Scenes by number: item i is always the same picture, caption and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.scenes.captions import write
from bcos_diffusion.scenes.layout import Placed, arrange, paint, visible_masks
from bcos_diffusion.scenes.lexicon import COLOURS, NOUNS, nouns, plural, with_article

SPLITS = ("train", "validation", "test")
_COLOURS = sorted(COLOURS)
_HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class Scene:
    """A picture with its caption. image: uint8 ``[H, W, 3]``; objects: in painting order, with visible masks."""

    image: NDArray[np.uint8]
    caption: str
    objects: tuple[Placed, ...]
    background: str

    @property
    def words(self) -> list[str]:
        """The words of the caption, marks included."""
        return self.caption.split()

    @property
    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """The visible region ``[H, W]`` of each caption word that has one: objects, and the background's colour."""
        masks: dict[str, NDArray[np.bool_]] = {}
        for placed in self.objects:
            assert placed.mask is not None
            for word in (placed.noun, plural(placed.noun)):
                if word in self.words:
                    masks[word] = masks.get(word, np.zeros_like(placed.mask)) | placed.mask
        if self.background in self.words:
            covered = np.any([p.mask for p in self.objects if p.mask is not None], axis=0)
            masks[self.background] = ~covered
        return masks


def held_out_pairs() -> frozenset[tuple[str, str]]:
    """The (colour, noun) pairs that training never shows."""

    def share(colour: str, noun: str) -> float:
        digest = hashlib.sha256(f"{colour} {noun}".encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32

    return frozenset((c, n) for c in _COLOURS for n in NOUNS if share(c, n) < _HELD_OUT_SHARE)


_HELD_OUT = held_out_pairs()


class Scenes:
    """Seeded, index-addressable scenes of one to four objects on a coloured canvas, of the :func:`nouns` of their size.

    The splits draw from disjoint random streams; (colour, noun) pairs of :func:`held_out_pairs` are in
    the test split alone. Raises ValueError for an unknown split, a size under 24 or a length under 1.
    """

    def __init__(self, size: int = 32, split: str = "train", seed: int = 0, length: int = 1_000_000):
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        if size < 24 or length < 1:
            raise ValueError(f"size must be at least 24 and length at least 1, got {size} and {length}")
        self.size, self.split, self.seed, self.length = size, split, seed, length
        self.nouns = nouns(size)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:
        image, caption, objects, background = self._make(index)
        return Scene(image, caption, visible_masks(objects, self.size), background)

    def batch(self, indices: Iterable[int]) -> tuple[NDArray[np.uint8], list[str]]:
        """Images ``[N, H, W, 3]`` and captions alone, for training."""
        made = [self._make(index) for index in indices]
        return np.stack([image for image, *_ in made]), [caption for _, caption, *_ in made]

    def composition(self, index: int) -> tuple[int, int]:
        """Of how many objects of one kind a scene is, 1 where there are several kinds, and of how many kinds."""
        return _composition(self._generator(index))

    def _generator(self, index: int) -> np.random.Generator:
        if not 0 <= index < self.length:
            raise IndexError(f"index must be in [0, {self.length}), got {index}")
        return np.random.Generator(np.random.PCG64([self.seed, SPLITS.index(self.split), index]))

    def _make(self, index: int) -> tuple[NDArray[np.uint8], str, list[Placed], str]:
        rng = self._generator(index)
        count, distinct = _composition(rng)
        chosen = [self.nouns[i] for i in rng.choice(len(self.nouns), distinct, replace=False)]
        colour = self._colour(rng, chosen)
        objects, relation = arrange(rng, chosen, count, self.size)
        return paint(objects, COLOURS[colour], self.size), write(rng, chosen, count, relation, colour), objects, colour

    def _colour(self, rng: np.random.Generator, chosen: list[str]) -> str:
        held_out = [c for c in _COLOURS if any((c, n) in _HELD_OUT for n in chosen)]
        if self.split == "test":
            choice = held_out if held_out and rng.random() < 0.25 else _COLOURS
        else:
            choice = [c for c in _COLOURS if c not in held_out]
        return choice[int(rng.integers(len(choice)))]


def _composition(rng: np.random.Generator) -> tuple[int, int]:
    """The count of a kind and the number of kinds, by the first draws of a scene."""
    kind = rng.random()
    if kind >= 0.92:
        return int(rng.integers(2, 5)), 1
    if kind >= 0.86:
        return 1, int(rng.integers(3, 5))
    return 1, 2 if kind >= 0.28 else 1


def prompts(count: int, seed: int = 0, size: int = 32) -> list[str]:
    """``count`` full sentences about scenes of side ``size``, for evaluation and sample sheets."""
    known = nouns(size)
    rng = np.random.Generator(np.random.PCG64([seed, len(SPLITS)]))
    relations = ("to the left of", "to the right of", "above", "below")
    texts = []
    for number in range(count):
        first, second = (with_article(known[i]) for i in rng.choice(len(known), 2, replace=False))
        colour = _COLOURS[int(rng.integers(len(_COLOURS)))]
        ground = f"on {with_article(colour)} background"
        relation = relations[int(rng.integers(4))]
        texts.append(f"{first} {relation} {second} {ground}" if number % 2 else f"{first} {ground}")
    return texts
