"""Pictures to learn from: scenes with their exact masks, and stranger ones that look as generated pictures do.

A generated picture is smudged, bent and mottled, puts four objects where three were named, cuts them off, mixes
two, and paints what is no object at all. Half of the pictures below do so too, on purpose. What is painted that no
noun accounts for is background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.evaluation.segmenter.classes import numbers
from bcos_diffusion.scenes import COLOURS, Scene, Scenes, nouns
from bcos_diffusion.scenes.sprites import sprite

Pixels = NDArray[np.float32]
Labels = NDArray[np.int64]

_GROUNDS = np.array(list(COLOURS.values()), np.float32) / 255
_STREAM = 17  # apart from the streams of Scenes, which are numbered by split
_OF_SCENES = 0.4
_PLAIN_SCENES, _PLAIN_STRANGE = 0.5, 0.2
_COUNTS = (0.03, 0.17, 0.25, 0.2, 0.25, 0.06, 0.04)
_MOST_COVERED = 0.35
_SOLID = 0.5


def labels(scene: Scene) -> Labels:
    """The class of each pixel ``[H, W]`` of a scene, by the visible masks of its objects."""
    found, number = np.zeros(scene.image.shape[:2], np.int64), numbers(len(scene.image))
    for placed in scene.objects:
        assert placed.mask is not None
        found[placed.mask] = number[placed.noun]
    return found


def picture(scenes: Scenes, seed: int, number: int) -> tuple[Pixels, Labels, bool]:
    """Picture ``number`` ``[3, H, W]`` of a seed, its classes ``[H, W]``, and whether it is still to be degraded."""
    rng = generator(seed, number)
    if rng.random() < _OF_SCENES:
        scene = scenes[number % len(scenes)]
        pixels = scene.image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        return pixels, labels(scene), rng.random() >= _PLAIN_SCENES
    pixels, classes = strange(rng, scenes.size)
    return pixels, classes, rng.random() >= _PLAIN_STRANGE


def generator(seed: int, number: int, part: int = 0) -> np.random.Generator:
    """The random stream of one picture, whatever batch it is in."""
    return np.random.Generator(np.random.PCG64([seed, _STREAM, part, number]))


def strange(rng: np.random.Generator, size: int) -> tuple[Pixels, Labels]:
    """Objects of any number anywhere, cut off, faded, mixed and beside blobs: ``[3, H, W]`` and ``[H, W]``."""
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = _ground(rng)
    classes = np.zeros((size, size), np.int64)
    count = int(rng.choice(len(_COUNTS), p=_COUNTS))
    cells = _cells(rng, size) if 1 < count <= 4 and rng.random() < 0.6 else None
    names, number_of = nouns(size), numbers(size)
    noun = _noun(rng, names)
    for number in range(count):
        if rng.random() < 0.8:
            noun = _noun(rng, names)
        share = rng.uniform(0.38, 0.95) if count == 1 else rng.uniform(0.36, 0.54)
        pixels = _broken(rng, noun, round(share * size), names)
        for _ in range(4):
            corner = _corner(rng, size, pixels.shape[:2], None if cells is None else cells[number])
            if _covered(classes, pixels, corner) < _MOST_COVERED:
                _put(canvas, classes, pixels, corner, number_of[noun])
                break
        if rng.random() < 0.06:
            blob = _blob(rng, round(rng.uniform(0.2, 0.5) * size), names)
            corner = _corner(rng, size, blob.shape[:2], None)
            if _covered(classes, blob, corner) < _MOST_COVERED:
                _put(canvas, classes, blob, corner, 0)
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)), classes


def _noun(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _ground(rng: np.random.Generator) -> Pixels:
    if rng.random() < 0.2:
        return rng.random(3).astype(np.float32)
    near = _GROUNDS[int(rng.integers(len(_GROUNDS)))] + rng.normal(0, 0.03, 3)
    return np.clip(near, 0, 1).astype(np.float32)


def _cells(rng: np.random.Generator, size: int) -> list[tuple[int, int]]:
    """The middles of the quarters of the canvas, in random order."""
    quarter = size // 4
    middles = [(a, b) for a in (quarter, 3 * quarter) for b in (quarter, 3 * quarter)]
    return [middles[i] for i in rng.permutation(4)]


def _corner(
    rng: np.random.Generator, size: int, shape: tuple[int, ...], middle: tuple[int, int] | None
) -> tuple[int, int]:
    """Top and left: around a middle, or anywhere, a fifth over the edge at most."""
    if middle is not None:
        sway = rng.integers(-2, 3, 2)
        return int(middle[0] - shape[0] // 2 + sway[0]), int(middle[1] - shape[1] // 2 + sway[1])
    top, left = (rng.uniform(-0.2 * length, size - 0.8 * length) for length in shape)
    return round(top), round(left)


def _broken(rng: np.random.Generator, noun: str, extent: int, names: tuple[str, ...]) -> Pixels:
    """A sprite ``[h, w, 4]`` that may be mirrored, mixed with another, cut off along a line, or faded."""
    pixels = sprite(noun, extent).copy()
    if rng.random() < 0.1:
        pixels = pixels[:, ::-1].copy()
    if rng.random() < 0.15:
        pixels[..., :3] = _mixed(rng, pixels, extent, names)
    if rng.random() < 0.12:
        pixels *= _half_plane(rng, pixels.shape[:2])[..., None]
    if rng.random() < 0.15:
        pixels *= np.float32(rng.uniform(0.7, 1))
    return pixels


def _mixed(rng: np.random.Generator, pixels: Pixels, extent: int, names: tuple[str, ...]) -> Pixels:
    """The colours of a sprite with up to 35% of those of another, or of one plain colour, within its outline."""
    alpha, share = pixels[..., 3:], np.float32(rng.uniform(0.1, 0.35))
    other = np.broadcast_to(rng.random(3).astype(np.float32), pixels[..., :3].shape)
    if rng.random() < 0.6:
        drawn = sprite(_noun(rng, names), extent)[: pixels.shape[0], : pixels.shape[1]]
        other = other.copy()
        under = other[: drawn.shape[0], : drawn.shape[1]]
        under[:] = drawn[..., :3] + (1 - drawn[..., 3:]) * under
    return (1 - share) * pixels[..., :3] + share * alpha * other


def _half_plane(rng: np.random.Generator, shape: tuple[int, ...]) -> Pixels:
    """1 on one side of a line that leaves 55% to 85% of the width in its direction, 0 on the other."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    along = np.cos(angle) * rows + np.sin(angle) * columns
    low, high = along.min(), along.max()
    return (along <= low + rng.uniform(0.55, 0.85) * (high - low)).astype(np.float32)


def _blob(rng: np.random.Generator, extent: int, names: tuple[str, ...]) -> Pixels:
    """What is no object: the mean of five sprites, or a smooth spot of one colour."""
    if rng.random() < 0.5:
        found = np.zeros((extent, extent, 4), np.float32)
        for _ in range(5):
            one = sprite(_noun(rng, names), extent)
            found[: one.shape[0], : one.shape[1]] += one / 5
        return found
    middle, across = (extent - 1) / 2, np.maximum(extent * rng.uniform(0.25, 0.5, 2), 1)
    rows, columns = np.mgrid[:extent, :extent]
    far = ((rows - middle) / across[0]) ** 2 + ((columns - middle) / across[1]) ** 2
    alpha = np.clip(1.5 - far, 0, 1)[..., None] * rng.uniform(0.3, 1)
    return np.concatenate([alpha * rng.random(3), alpha], -1).astype(np.float32)


def _covered(classes: Labels, pixels: Pixels, corner: tuple[int, int]) -> float:
    """The share of a sprite's pixels that are another object's already."""
    shown, under = _overlap(classes.shape, pixels, corner)
    solid = pixels[shown][..., 3] >= _SOLID
    return float((classes[under] > 0)[solid].mean()) if solid.any() else 0.0


def _put(canvas: Pixels, classes: Labels, pixels: Pixels, corner: tuple[int, int], label: int) -> None:
    """Paint a sprite and label the pixels that it hides to a half or more."""
    shown, under = _overlap(classes.shape, pixels, corner)
    seen = pixels[shown]
    canvas[under] = canvas[under] * (1 - seen[..., 3:]) + seen[..., :3]
    classes[under][seen[..., 3] >= _SOLID] = label


def _overlap(
    shape: tuple[int, ...], pixels: Pixels, corner: tuple[int, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a sprite that is on the canvas, and the part of the canvas under it."""
    shown, under = [], []
    for length, room, start in zip(pixels.shape, shape, corner, strict=False):
        first, last = max(start, 0), min(start + length, room)
        shown.append(slice(first - start, max(last, first) - start))
        under.append(slice(first, max(last, first)))
    return tuple(shown), tuple(under)
