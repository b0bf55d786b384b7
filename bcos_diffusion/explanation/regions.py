"""Which words made a region of an image, exactly: their maps, summed over its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.explanation.relevance import Part, mean_free

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two not included."""


@dataclass(frozen=True)
class RegionShare:
    """What one part gave to a region.

    mass: the sum of its map there (c_i of Eq. 8 with the region as cotangent); share: of the region's mass; push: its
    share in what moves the region's pixels from the image's mean colour to their own. Shares and pushes of all parts,
    those that are no words included, sum to 1; where an image has none of either they are 0.
    """

    text: str
    mass: float
    share: float
    push: float
    negative: bool = False


@dataclass(frozen=True)
class RegionReport:
    """Words (or tokens) of a region, the largest share first, and the parts that are no words by name."""

    words: tuple[RegionShare, ...]
    others: tuple[RegionShare, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"words": [vars(share) for share in self.words], "others": [vars(share) for share in self.others]}


def region_mask(region: Box | Tensor, height: int, width: int) -> Tensor:
    """A box, or a mask ``[H, W]`` of booleans or weights, as weights in float64.

    Raises ValueError for a box outside the image or without a pixel, and for a mask of another shape or of zeros.
    """
    if isinstance(region, Tensor):
        if tuple(region.shape) != (height, width):
            raise ValueError(f"the mask must be [{height}, {width}] like the image, got {list(region.shape)}")
        if not bool(region.any()):
            raise ValueError("the mask has no pixel")
        return region.double()
    left, top, right, bottom = region
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"the box must be left, top, right, bottom with 0 <= left < right <= {width} and"
            f" 0 <= top < bottom <= {height}, got {', '.join(map(str, region))}"
        )
    mask = torch.zeros(height, width, dtype=torch.float64)
    mask[top:bottom, left:right] = 1
    return mask


def report(parts: Sequence[Part], others: Mapping[str, Tensor], image: Tensor, region: Box | Tensor) -> RegionReport:
    """What parts with maps ``[6, H, W]``, and others, gave to a region of an image ``[6, H, W]``.

    Raises ValueError as :func:`region_mask`.
    """
    mask = region_mask(region, *image.shape[-2:]).to(image.device)

    def sums(map: Tensor) -> tuple[float, float]:
        return float((map.double() * mask).sum()), float((mean_free(map.double(), image.double()) * mask).sum())

    whole_mass, whole_push = sums(image)

    def share(text: str, map: Tensor, negative: bool) -> RegionShare:
        mass, push = sums(map)
        relative = mass / whole_mass if whole_mass else 0.0
        return RegionShare(text, mass, relative, push / whole_push if whole_push else 0.0, negative)

    words = [share(part.text, part.map, part.negative) for part in parts]
    return RegionReport(
        tuple(sorted(words, key=lambda found: -found.share)),
        tuple(share(name, map, False) for name, map in others.items()),
    )
