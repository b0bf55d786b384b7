"""Which objects are in a picture, named or not, how many, and where: judged by the segmenter.

A noun is in a picture when the pixels of its class are at least a share of the area that it covers in real scenes of
as many objects. The share is the segmenter's own, chosen on validation scenes when it was trained
(``segmenter.calibration``). ``evaluation.presence`` is a second judge, which has learnt nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.evaluation.segmenter import Segmenter, nearest_colour
from bcos_diffusion.evaluation.words import OBJECTS, SINGULAR, named_relation, stands
from bcos_diffusion.scenes import COLOURS, NOUNS
from bcos_diffusion.scenes.layout import extents
from bcos_diffusion.scenes.lexicon import NUMERALS
from bcos_diffusion.scenes.sprites import sprite

MOST = 4
"""The most objects that a scene has; pictures of more are judged by the sizes of this many."""
_SOLID = 0.5


@dataclass(frozen=True)
class Drawn:
    """What is in one picture.

    shares: of each noun of the lexicon that has a pixel, its area over the usual one; named: how many of each noun
    the caption asks for, 0 where it says only that they are several; present: the nouns drawn, named or not; counts:
    how many of each of these; centres: row and column of the middle of each; colour: the background's, None without
    a background.
    """

    shares: dict[str, float]
    named: dict[str, int]
    present: frozenset[str]
    counts: dict[str, int]
    centres: dict[str, tuple[float, float]]
    colour: str | None

    @property
    def missing(self) -> frozenset[str]:
        """The nouns named but not drawn."""
        return frozenset(self.named) - self.present

    @property
    def extra(self) -> frozenset[str]:
        """The nouns drawn but not named."""
        return self.present - frozenset(self.named)

    def counts_right(self) -> list[bool]:
        """For each noun named, whether there are as many as asked for; at least two where no numeral says."""
        seen = {noun: self.counts.get(noun, 0) for noun in self.named}
        return [seen[noun] == wanted if wanted else seen[noun] >= 2 for noun, wanted in self.named.items()]

    def colour_right(self, words: Sequence[str]) -> bool | None:
        """Whether the background is nearest to the first colour that the caption names; None where it names none."""
        wanted = next((word for word in words if word in COLOURS), None)
        return None if wanted is None else wanted == self.colour

    def relation_holds(self, words: Sequence[str]) -> bool | None:
        """Whether two nouns stand as the caption says; False where one is missing, None where it says nothing."""
        asked = named_relation(words)
        return None if asked is None else stands(*asked, self.centres)


def judge(segmenter: Segmenter, images: Tensor, captions: Sequence[Sequence[str]]) -> list[Drawn]:
    """Say of each image ``[N, 3, H, W]`` in [0, 1] what is in it. captions: the words of each.

    Raises ValueError where there are not as many captions as images.
    """
    if len(images) != len(captions):
        raise ValueError(f"there must be a caption for each image, got {len(captions)} for {len(images)}")
    least = segmenter.present_share
    classes = segmenter.classes(images)
    return [
        _judge(image, seen, words, least, segmenter.names)
        for image, seen, words in zip(images, classes, captions, strict=True)
    ]


def _judge(image: Tensor, classes: Tensor, words: Sequence[str], least: float, names: Sequence[str]) -> Drawn:
    named = named_objects(words)
    total = objects_of(named)
    shares = area_shares(classes, total, names)
    present = frozenset(noun for noun, share in shares.items() if share >= least)
    counts, centres = {}, {}
    for noun in present:
        mask = classes == names.index(noun)
        counts[noun] = count_objects(mask, usual_area(noun, total, _side(classes)), least)
        row, column = mask.nonzero().double().mean(0).tolist()
        centres[noun] = row, column
    return Drawn(shares, named, present, counts, centres, nearest_colour(image, classes))


def named_objects(words: Sequence[str]) -> dict[str, int]:
    """How many of each noun a caption asks for, in order: a plural after a numeral that many, without one 0."""
    found = {}
    for before, word in zip(("", *words), words, strict=False):
        if word in OBJECTS:
            several = 0 if word not in NOUNS else 1
            found[SINGULAR[word]] = NUMERALS.index(before) + 1 if before in NUMERALS else several
    return found


def objects_of(named: dict[str, int]) -> int:
    """How many objects a caption asks for in all, from 1 to 4: several are at least two."""
    return min(max(sum(count or 2 for count in named.values()), 1), MOST)


def area_shares(classes: Tensor, total: int, names: Sequence[str]) -> dict[str, float]:
    """The area of each noun seen in ``classes`` ``[H, W]`` over its usual one in scenes of ``total`` objects.

    names: of the classes, by number.
    """
    areas = torch.bincount(classes.flatten(), minlength=len(names)).tolist()
    side = _side(classes)
    return {names[i]: area / usual_area(names[i], total, side) for i, area in enumerate(areas) if i and area}


@cache
def usual_area(noun: str, total: int, size: int) -> float:
    """How many pixels a noun covers on average in scenes of ``total`` objects of side ``size``."""
    low, high = extents(total, size)
    areas = [int((sprite(noun, extent)[..., 3] >= _SOLID).sum()) for extent in range(low, high + 1)]
    return sum(areas) / len(areas)


def count_objects(mask: Tensor, usual: float, least: float) -> int:
    """How many objects a class's pixels ``[H, W]`` are.

    Connected parts of less than ``least`` of the ``usual`` area are parts of others; one of about twice that area is
    two objects that touch.
    """
    parts = [area / usual for area in component_areas(mask)]
    whole = sum(max(1, round(share)) for share in parts if share >= least)
    return max(1, whole) if parts else 0


def component_areas(mask: Tensor) -> list[int]:
    """The areas of the 8-connected parts of a mask ``[H, W]``, largest first."""
    number = torch.arange(1, mask.numel() + 1, dtype=torch.float32).view(mask.shape) * mask
    while True:  # the largest number of each part floods it
        flooded = F.max_pool2d(number[None, None], 3, 1, 1)[0, 0] * mask
        if torch.equal(flooded, number):
            return sorted(number[mask].unique(return_counts=True)[1].tolist(), reverse=True)
        number = flooded


def _side(classes: Tensor) -> int:
    return min(classes.shape)
