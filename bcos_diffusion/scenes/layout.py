"""Where objects go, how a scene is painted, and which pixels each object is seen at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.scenes.sprites import sprite

# Shares of the canvas, by the number of objects. Each fills most of a cell of its own and sways little: the more
# of the variance of pictures is its noun's and not its place's, the fewer pictures teach a noun's shape.
_SIZES = {1: (0.8, 0.92), 2: (0.44, 0.5), 3: (0.42, 0.48), 4: (0.42, 0.48)}
_SWAY = 0.03
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
    """Place one object per noun, or ``count`` of the one noun, each somewhere in a cell of its own.

    Returns the objects and, for two nouns, the relation of the first to the second.
    """
    names = nouns * count
    low, high = extents(len(names), size)
    placed = [
        _place(rng, name, int(rng.integers(low, high + 1)), *cell, sway=round(_SWAY * size))
        for name, cell in zip(names, _cells(rng, len(names), size), strict=True)
    ]
    return placed, _relation(placed) if len(nouns) == 2 else None


def extents(count: int, size: int) -> tuple[int, int]:
    """The least and the largest side of each of ``count`` objects (1 to 4) on a canvas, in pixels."""
    low, high = _SIZES[count]
    return int(low * size), int(high * size)


def _cells(rng: np.random.Generator, count: int, size: int) -> list[tuple[int, int, int]]:
    """Top, left and side of disjoint squares in random order: the canvas, two halves of it, or its quarters."""
    if count == 1:
        return [(0, 0, size)]
    half, sway = size // 2, round(2 * _SWAY * size)
    if count == 2:
        along = [(i * half, _around_the_middle(rng, half, sway)) for i in rng.permutation(2)]
        upright = rng.random() < 0.5
        return [(a, b, half) if upright else (b, a, half) for a, b in along]
    return [(half * int(i // 2), half * int(i % 2), half) for i in rng.permutation(4)[:count]]


def _place(rng: np.random.Generator, noun: str, extent: int, top: int, left: int, side: int, sway: int) -> Placed:
    height, width = sprite(noun, extent).shape[:2]
    down, along = (_around_the_middle(rng, side - length, sway) for length in (height, width))
    return Placed(noun, extent, top + down, left + along)


def _around_the_middle(rng: np.random.Generator, room: int, sway: int) -> int:
    """A number from 0 to ``room``, at most ``sway`` from its middle and most often there: the mean of two draws."""
    span = min(room, 2 * sway)
    return (room - span) // 2 + int(rng.random(2).mean() * (span + 1))


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
