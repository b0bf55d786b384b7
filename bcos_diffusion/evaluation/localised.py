"""Where the maps of one method lie on one picture, at one or several noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.evaluation import localisation as local
from bcos_diffusion.evaluation.truth import Region
from bcos_diffusion.evaluation.words import group

DIGITS = 4
"""Of curves, which are most of what a record holds."""
SILENT = ("function", "relation")
"""Groups of words that have no place in a picture."""


def localise(maps: NDArray[np.floating[Any]], words: Sequence[str], regions: Sequence[Region]) -> dict[str, Any]:
    """Localisation of every region's word at N levels. maps: ``[words, N, H, W]``.

    Returns ``regions``, for each its numbers ``[N]`` by name (``iou`` ``[N, thresholds]`` and
    ``precision`` ``[N, recalls]``, of ``GRID`` and ``RECALLS``; ``leakage`` NaN where no other object is), and
    ``function_mass`` ``[N]``, NaN where the caption has no function word.
    """
    levels = [_at_level(np.asarray(maps[:, level], np.float64), regions) for level in range(maps.shape[1])]
    silent = np.array([group(word) in SILENT for word in words])
    function_mass = [
        local.share_of_mass(maps[:, level], silent) if silent.any() else np.nan for level in range(maps.shape[1])
    ]
    found = [
        {name: np.array([level[number][name] for level in levels]) for name in levels[0][number]}
        for number in range(len(regions))
    ]
    return {"regions": found, "function_mass": np.array(function_mass)}


def _at_level(maps: NDArray[np.float64], regions: Sequence[Region]) -> list[dict[str, Any]]:
    if not regions:
        return []
    masks = np.stack([region.mask for region in regions])
    objects = np.array([region.kind == "object" for region in regions])
    own = maps[[region.word for region in regions]]
    foreign = np.zeros_like(masks)
    foreign[objects] = local.others(masks[objects])
    columns = {
        "ap": local.average_precision(own, masks),
        "iou": local.iou(own, masks).round(DIGITS),
        "precision": local.precision_at(own, masks).round(DIGITS),
        "pointing": local.pointing(own, masks),
        "mass_inside": local.mass_inside(own, masks),
        "leakage": local.mass_inside(own, foreign),
        "largest": np.array([local.largest(maps, region.mask, region.word) for region in regions]),
    }
    return [{name: column[number] for name, column in columns.items()} for number in range(len(regions))]
