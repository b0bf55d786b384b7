"""Do maps lie where their words' objects are? Plain functions of maps and true masks, a number a map.

maps: ``[k, H, W]`` of any scale and sign; masks: ``[k, H, W]`` bool, one for each map. Mass is the sum of a map's
positive values. A map without a positive value points nowhere: it is counted, as a miss (0) where a high number is
good, and as no leakage (0), since it puts nothing on anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Maps = NDArray[np.float64]
Masks = NDArray[np.bool_]
Numbers = NDArray[np.float64]

GRID = np.arange(1, 40) / 40
"""Thresholds, as shares of a map's maximum, among which the best one is chosen on validation scenes."""
RECALLS = np.arange(11) / 10
"""Where the curve of precision is kept."""


def average_precision(maps: ArrayLike, masks: ArrayLike) -> Numbers:
    """Area under the precision-recall curve of a mask's pixels ranked by the map: ``[k]``, free of any threshold.

    Σ_n (R_n − R_{n−1}) P_n over distinct values n, as scikit-learn's ``average_precision_score``: equal values are one
    step. NaN for an empty mask.
    """
    truth, precision, _ = _ranked(maps, masks)
    return _ratio((truth * precision).sum(1), truth.sum(1))


def precision_at(maps: ArrayLike, masks: ArrayLike, recalls: ArrayLike = RECALLS) -> Numbers:
    """The best precision among all thresholds whose recall is at least each of ``recalls [r]``: ``[k, r]``.

    NaN for an empty mask.
    """
    _, precision, recall = _ranked(maps, masks)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # Recalls are ratios of integers that do not meet their decimals: one that is reached counts.
    places = (recall[:, None] < np.atleast_1d(np.asarray(recalls, np.float64))[:, None] - 1e-9).sum(2)
    found = np.take_along_axis(best, np.minimum(places, best.shape[1] - 1), 1)
    return np.where(np.isnan(recall[:, :1]), np.nan, found)


def _ranked(maps: ArrayLike, masks: ArrayLike) -> tuple[Masks, Numbers, Numbers]:
    """Pixels from the highest value down: truth, precision and recall ``[k, H·W]`` with all that are as high."""
    values, truth = _flat(maps, masks)
    order = np.argsort(-values, axis=1, kind="stable")
    values, truth = np.take_along_axis(values, order, 1), np.take_along_axis(truth, order, 1)
    count = values.shape[1]
    found = np.cumsum(truth, 1)
    last = np.ones_like(truth)
    last[:, :-1] = values[:, 1:] != values[:, :-1]
    ends = np.where(last, np.arange(count), count)
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]  # of each pixel, where its run of equal values ends
    found = np.take_along_axis(found, ends, 1)
    return truth, found / (ends + 1), _ratio(found, np.broadcast_to(truth.sum(1, keepdims=True), found.shape))


def iou(maps: ArrayLike, masks: ArrayLike, thresholds: ArrayLike = GRID) -> Numbers:
    """Intersection over union of masks and of maps cut at shares of their own maxima (DAAM's Eq. 8): ``[k, t]``.

    thresholds: ``[t]`` in (0, 1]. A pixel belongs to a cut map if its value is at least the share of a positive
    maximum; 0 where there is none. NaN for an empty mask.
    """
    values, truth = _flat(maps, masks)
    peaks = values.max(1)
    levels = np.atleast_1d(np.asarray(thresholds, np.float64))[:, None] * peaks[:, None, None]  # [k, t, 1]
    cut = np.asarray((values[:, None] >= levels) & np.asarray(peaks > 0)[:, None, None], bool)
    both = (cut & truth[:, None]).sum(2)
    either = (cut | truth[:, None]).sum(2)
    return np.where(truth.any(1, keepdims=True), both / np.maximum(either, 1), np.nan)


def pointing(maps: ArrayLike, masks: ArrayLike) -> Numbers:
    """Pointing game: whether the largest value lies in the mask ``[k]``; of several, the share that does."""
    values, truth = _flat(maps, masks)
    peaks = values.max(1, keepdims=True)
    largest = (values == peaks) & (peaks > 0)
    return np.where(truth.any(1), _share((largest & truth).sum(1), largest.sum(1)), np.nan)


def mass(maps: ArrayLike) -> Numbers:
    """The sum of each map's positive values: ``[k]``."""
    values = _checked(maps)
    return np.asarray(values.clip(min=0).sum((1, 2)), np.float64)


def mass_inside(maps: ArrayLike, masks: ArrayLike) -> Numbers:
    """The share of each map's mass that lies in its mask: ``[k]``; NaN for an empty mask.

    Of a colour's map and the colour's region this is the colour mass; of a word's map and the masks of all other
    objects, leakage.
    """
    values, truth = _flat(maps, masks)
    positive = values.clip(min=0)
    return np.where(truth.any(1), _share((positive * truth).sum(1), positive.sum(1)), np.nan)


def others(masks: ArrayLike) -> Masks:
    """For each mask where any of the other ones is, and it is not: ``[k, H, W]``."""
    truth = np.asarray(masks, bool)
    shared = truth.sum(0) - truth
    return np.asarray((shared > 0) & ~truth)


def share_of_mass(maps: ArrayLike, chosen: ArrayLike) -> float:
    """The share of the mass of all maps that the ``chosen`` ones ``[k]`` bool hold; 0 where there is no mass."""
    masses = mass(maps)
    return float(_share(masses[np.asarray(chosen, bool)].sum(), masses.sum()))


def largest(maps: ArrayLike, mask: ArrayLike, own: int) -> float:
    """Whether map ``own`` has the largest sum over a region ``[H, W]``, of all maps; of several, its share of them.

    0 where no sum is positive: no word has made the region.
    """
    values = _checked(maps)
    sums = (values * np.asarray(mask, bool)).sum((1, 2))
    best = sums == sums.max()
    return float(best[own] / best.sum()) if sums.max() > 0 else 0.0


def best_threshold(curves: ArrayLike, thresholds: ArrayLike = GRID) -> float:
    """The threshold ``[t]`` whose IoU, ``curves [k, t]``, is the highest on average; the lowest one of several.

    To be given validation scenes. Raises ValueError where no curve is known.
    """
    known = np.asarray(curves, np.float64).reshape(-1, len(np.atleast_1d(thresholds)))
    known = known[~np.isnan(known).any(1)]
    if not len(known):
        raise ValueError("no map has a true mask to choose a threshold by")
    return float(np.atleast_1d(thresholds)[known.mean(0).argmax()])


def _checked(maps: ArrayLike) -> Maps:
    values = np.asarray(maps, np.float64)
    if values.ndim != 3:
        raise ValueError(f"maps must be [k, H, W], got shape {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError("maps must be finite, got NaN or infinity")
    return values


def _flat(maps: ArrayLike, masks: ArrayLike) -> tuple[Maps, Masks]:
    values, truth = _checked(maps), np.asarray(masks, bool)
    if values.shape != truth.shape:
        raise ValueError(f"maps and masks must have one shape, got {list(values.shape)} and {list(truth.shape)}")
    return values.reshape(len(values), -1), truth.reshape(len(truth), -1)


def _ratio(above: NDArray[np.generic], below: NDArray[np.generic]) -> Numbers:
    """above / below; NaN where both are nothing."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)


def _share(above: ArrayLike, below: ArrayLike) -> Numbers:
    """above / below; 0 where the whole is nothing."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) != 0)
