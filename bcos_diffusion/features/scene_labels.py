"""The true labels of scenes: which object, on which colour, how many, and how they lie.

``object``: the noun, in scenes of one kind of object. ``colour``: the background's. ``count``: how many objects.
``position``: where the larger of two objects lies, as seen from the other. A lone object always fills the middle, so
that only scenes of two objects (six of ten) tell of positions; which of the two is meant is said by the pixels, not by
a caption, so that an image alone tells its label. Where neither is clearly larger, none is given.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bcos_diffusion.scenes import COLOURS, Scene
from bcos_diffusion.scenes.layout import Placed
from bcos_diffusion.scenes.lexicon import NUMERALS

POSITIONS = ("left", "right", "above", "below")
SCENE_CLASSES: dict[str, tuple[str, ...]] = {
    "colour": tuple(sorted(COLOURS)),
    "position": POSITIONS,
    "count": NUMERALS,
}
LARGER = 1.1
"""By which factor one area is clearly larger than another."""


def scene_labels(scene: Scene, classes: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """The number of a scene's class by factor, -1 where a factor does not apply. classes: factor -> names."""
    kinds = {placed.noun for placed in scene.objects}
    position = larger_lies(*scene.objects) if len(scene.objects) == 2 else None
    return {
        "object": classes["object"].index(kinds.pop()) if len(kinds) == 1 else -1,
        "colour": classes["colour"].index(scene.background),
        "position": -1 if position is None else classes["position"].index(position),
        "count": len(scene.objects) - 1,
    }


def larger_lies(one: Placed, other: Placed) -> str | None:
    """On which side of the smaller object the one lies that is seen at more pixels; None where they are about equal."""
    assert one.mask is not None and other.mask is not None
    if one.mask.sum() < other.mask.sum():
        one, other = other, one
    assert one.mask is not None and other.mask is not None
    if one.mask.sum() < LARGER * other.mask.sum():
        return None
    down, along = (a - b for a, b in zip(_middle(one.mask), _middle(other.mask), strict=True))
    if abs(along) >= abs(down):
        return "left" if along < 0 else "right"
    return "above" if down < 0 else "below"


def _middle(mask: np.ndarray) -> tuple[float, float]:
    """Row and column of the middle of what is seen."""
    rows, columns = np.nonzero(mask)
    return float(rows.mean()), float(columns.mean())
