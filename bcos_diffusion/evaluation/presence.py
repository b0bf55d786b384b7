"""Are the objects of a prompt in the picture, and in their places? A matched filter over the artwork.

Under a known plain background, the placement of a noun's sprite that removes the most squared error
from an image is its most likely one. Placements are taken greedily, each subtracted before the next.
The filter is no judge of taste: a well drawn object in a new pose can be missed, so every number
stands beside the same number on real test scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.evaluation.colour import background_colour
from bcos_diffusion.evaluation.words import OBJECTS, SINGULAR, named_relation, stands
from bcos_diffusion.scenes import nouns
from bcos_diffusion.scenes.sprites import sprite

_EXTENTS = (0.38, 0.92)
_MOST_SIZES = 18


@dataclass(frozen=True)
class Found:
    """A noun and the centre of its best placement, in pixels."""

    noun: str
    row: float
    column: float


@cache
def _sprites(names: tuple[str, ...], extent: int) -> Tensor:
    """Nouns at one size, premultiplied colours and alpha, in the corner of a square: ``[nouns, 4, s, s]``."""
    stack = np.zeros((len(names), extent, extent, 4), np.float32)
    for index, noun in enumerate(names):
        pixels = sprite(noun, extent)
        stack[index, : pixels.shape[0], : pixels.shape[1]] = pixels
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()


def find_objects(image: Tensor, count: int) -> list[Found]:
    """The ``count`` nouns whose sprites explain an image ``[3, H, W]`` best over its background."""
    names = nouns(min(image.shape[1:]))
    ground = background_colour(image)[:, None, None]
    rest = image - ground
    low, high = (round(share * image.shape[1]) for share in _EXTENTS)
    extents = sorted({round(e) for e in np.linspace(low, high, _MOST_SIZES)})
    # What placing a sprite would change: premultiplied colours, less the ground they cover.
    changes = {e: _sprites(names, e)[:, :3] - _sprites(names, e)[:, 3:] * ground for e in extents}
    found: list[Found] = []
    for _ in range(count):
        best = max((_best_of_size(rest, changes[e]) for e in extents), key=lambda placement: placement[0])
        _, noun, top, left, extent = best
        rest = rest.clone()
        under = rest[:, top : top + extent, left : left + extent]
        under -= changes[extent][noun, :, : under.shape[1], : under.shape[2]]
        height, width = sprite(names[noun], extent).shape[:2]
        found.append(Found(names[noun], top + height / 2, left + width / 2))
    return found


def _best_of_size(rest: Tensor, changes: Tensor) -> tuple[float, int, int, int, int]:
    """The squared error removed by the best placement of one size: ‖D‖² − ‖D − P‖² = 2⟨D, P⟩ − ‖P‖²."""
    # Sprites lie in the corner of their squares, so a square may reach over the right and the lower edge.
    reach = changes.shape[-1] - 1
    overlap = F.conv2d(F.pad(rest, (0, reach, 0, reach))[None], changes)[0]
    gain = 2 * overlap - changes.pow(2).sum((1, 2, 3))[:, None, None]
    flat = int(gain.argmax())
    noun, top, left = np.unravel_index(flat, gain.shape)
    return float(gain.flatten()[flat]), int(noun), int(top), int(left), changes.shape[-1]


def judge_objects(image: Tensor, words: list[str]) -> tuple[int, int, bool | None]:
    """How many of the nouns that a caption names are found in its image, how many it names, and whether two stand so.

    The last is False where one of the two is missing, and None where the caption says nothing of how they stand.
    """
    named = {SINGULAR[word] for word in words if word in OBJECTS}
    asked = named_relation(words)
    # Placements are taken one after the other, so the first of more are those of fewer.
    places = find_objects(image, max(len(named), 0 if asked is None else 2))
    found = {f.noun for f in places[: len(named)]}
    relation = None if asked is None else stands(*asked, {f.noun: (f.row, f.column) for f in places[:2]})
    return len(named & found), len(named), relation
