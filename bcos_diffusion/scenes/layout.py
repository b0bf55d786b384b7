"""Where objects go, how a scene is painted, and which pixels each object is seen at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.scenes.sprites import sprite

_SIZES = {1: (0.5, 0.85), 2: (0.36, 0.5), 3: (0.32, 0.42), 4: (0.3, 0.4)}
_TRIES = 60
_SEEN = 0.5


@dataclass(frozen=True)
class Placed:
    """An object on the canvas: its sprite's size and its top left corner, in pixels; mask: where it is seen."""

    noun: str
    size: int
    top: int
    left: int
    mask: NDArray[np.bool_] | None = None

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right; the last two exclusive."""
        height, width = sprite(self.noun, self.size).shape[:2]
        return self.top, self.left, self.top + height, self.left + width


def arrange(rng: np.random.Generator, nouns: list[str], count: int, size: int) -> tuple[list[Placed], str | None]:
    """Place one object per noun, or ``count`` of the one noun, without touching boxes.

    Returns the objects and, for two nouns, the relation of the first to the second.
    """
    names = nouns * count
    while True:
        low, high = _SIZES[len(names)]
        extents = [int(rng.integers(round(low * size), round(high * size) + 1)) for _ in names]
        placed = _place(rng, names, extents, size)
        if placed is not None:
            return placed, _relation(placed) if len(nouns) == 2 else None


def _place(rng: np.random.Generator, names: list[str], extents: list[int], size: int) -> list[Placed] | None:
    placed: list[Placed] = []
    for noun, extent in zip(names, extents, strict=True):
        height, width = sprite(noun, extent).shape[:2]
        for _ in range(_TRIES):
            candidate = Placed(
                noun, extent, int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
            )
            if not any(_touch(candidate.box, other.box) for other in placed):
                placed.append(candidate)
                break
        else:
            return None
    return placed


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _relation(placed: list[Placed]) -> str:
    """The side on which the first object lies clear of the second, the wider gap first."""
    a, b = (p.box for p in placed)
    gaps = {"left": b[1] - a[3], "right": a[1] - b[3], "above": b[0] - a[2], "below": a[0] - b[2]}
    return max(gaps, key=lambda name: gaps[name])


def paint(objects: list[Placed], colour: tuple[int, int, int], size: int) -> NDArray[np.uint8]:
    """Paint objects in order over a plain canvas: uint8 ``[size, size, 3]``."""
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = np.asarray(colour, np.float32) / 255
    for placed in objects:
        top, left, bottom, right = placed.box
        pixels = sprite(placed.noun, placed.size)
        region = canvas[top:bottom, left:right]
        region *= 1 - pixels[..., 3:]
        region += pixels[..., :3]
    return (canvas * 255 + 0.5).astype(np.uint8)


def visible_masks(objects: list[Placed], size: int) -> tuple[Placed, ...]:
    """The objects with the pixels ``[size, size]`` at which each is seen: alpha of at least a half, not covered."""
    free = np.ones((size, size), np.bool_)
    seen: list[Placed] = []
    for placed in reversed(objects):
        top, left, bottom, right = placed.box
        solid = np.zeros((size, size), np.bool_)
        solid[top:bottom, left:right] = sprite(placed.noun, placed.size)[..., 3] >= _SEEN
        seen.append(replace(placed, mask=solid & free))
        free &= ~solid
    return tuple(reversed(seen))
