"""The few statistics that the protocol needs: ranks with ties, Spearman's rho, bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Unit = TypeVar("Unit")

RESAMPLES = 1000
_AT_ONCE = 50


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of the ranks they span. values: ``[n]``."""
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[inverse]


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation of the ranks of ``x`` and ``y`` ``[n]``; NaN where either does not vary.

    Raises ValueError when the lengths differ.
    """
    a, b = ranks(x), ranks(y)
    if a.shape != b.shape:
        raise ValueError(f"x and y must have one length, got {len(a)} and {len(b)}")
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def mean(values: Sequence[float]) -> float:
    """The mean of what is not NaN; NaN where nothing is left."""
    kept = [v for v in values if not math.isnan(v)]
    return math.fsum(kept) / len(kept) if kept else math.nan


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Sum of the first over the sum of the second; infinite or NaN where the second sum is exactly 0."""
    above, below = math.fsum(a for a, _ in pairs), math.fsum(b for _, b in pairs)
    if below == 0:
        return math.inf if above > 0 else math.nan
    return above / below


def bootstrap(units: Sequence[Unit], statistic: Callable[[Sequence[Unit]], float]) -> dict[str, float]:
    """A statistic of prompts or scenes with its 95% percentile interval over resampled ``units``.

    Seeded, so equal units give an equal interval. Returns ``value``, ``low`` and ``high``; all NaN for no units.
    """

    def resample() -> list[float]:
        rng = np.random.Generator(np.random.PCG64(0))
        return [statistic([units[i] for i in rng.integers(len(units), size=len(units))]) for _ in range(RESAMPLES)]

    return _interval(statistic(units) if units else math.nan, resample)


def _interval(value: float, resample: Callable[[], ArrayLike]) -> dict[str, float]:
    """A value with the 95% percentile interval of what resamples give, those that give NaN left out.

    All NaN where the value is; then nothing is resampled.
    """
    if math.isnan(value):
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    drawn = np.asarray(resample(), np.float64)
    low, high = np.quantile(drawn[~np.isnan(drawn)], [0.025, 0.975], method="nearest")
    return {"value": value, "low": float(low), "high": float(high)}


Ratios = NDArray[np.float64]


def bootstrap_ratios(above: ArrayLike, below: ArrayLike, combine: Callable[[Ratios], Ratios]) -> dict[str, float]:
    """:func:`bootstrap` of what ``combine`` makes of m ratios of sums over units, all resamples at once.

    above, below: ``[n]`` or ``[n, m]``, of n prompts or scenes; a unit that has none counts 0 in both; combine: from
    ratios ``[..., m]`` to numbers ``[...]``. Ratios of one resample are of the same units, so a difference of two is
    paired.
    """
    sums = [np.asarray(side, np.float64) for side in (above, below)]
    over, under = (side[:, None] if side.ndim == 1 else side for side in sums)

    def resample() -> Ratios:
        counts = _times_drawn(len(over), RESAMPLES)
        return combine((counts @ over) / (counts @ under))

    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(float(combine(over.sum(0) / under.sum(0))) if len(over) else math.nan, resample)


def bootstrap_ratio(above: ArrayLike, below: ArrayLike) -> dict[str, float]:
    """The ratio of two sums over units ``[n]`` with its interval; with counts below, the mean of what is counted."""
    return bootstrap_ratios(above, below, lambda ratios: ratios[..., 0])


def bootstrap_spearman(units: Sequence[ArrayLike]) -> dict[str, float]:
    """:func:`bootstrap` of Spearman's rho over the pairs ``[k, 2]`` of all units, all resamples at once.

    A resample is the same pairs with other weights, so each side is sorted once.
    """
    pairs = [np.asarray(unit, np.float64).reshape(-1, 2) for unit in units]
    joined = np.concatenate(pairs) if pairs else np.zeros((0, 2))

    def resample() -> Ratios:
        of_unit = np.repeat(np.arange(len(pairs)), [len(unit) for unit in pairs])
        counts = _times_drawn(len(pairs), RESAMPLES)
        batches = (counts[first : first + _AT_ONCE, of_unit] for first in range(0, RESAMPLES, _AT_ONCE))
        return np.concatenate([_weighted_spearman(joined, batch) for batch in batches])

    return _interval(spearman(joined[:, 0], joined[:, 1]) if len(joined) else math.nan, resample)


def _weighted_spearman(pairs: Ratios, weights: Ratios) -> Ratios:
    """Rho of pairs ``[m, 2]``, each counted ``weights`` ``[r, m]`` times: ``[r]``; NaN where a side does not vary."""
    total = weights.sum(1, keepdims=True)
    x, y = (_weighted_ranks(pairs[:, side], weights) for side in (0, 1))
    x, y = (ranked - (weights * ranked).sum(1, keepdims=True) / total for ranked in (x, y))
    scale = np.sqrt((weights * x * x).sum(1) * (weights * y * y).sum(1))
    product = (weights * x * y).sum(1)
    # Where all that was drawn is equal, only rounding is left.
    return np.divide(product, scale, out=np.full(len(product), np.nan), where=scale > 1e-9 * total[:, 0])


def _weighted_ranks(values: Ratios, weights: Ratios) -> Ratios:
    """Ranks, up to a constant, of values ``[m]`` counted ``weights`` ``[r, m]`` times, ties sharing their mean."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    equal = np.add.reduceat(weights[:, order], starts, axis=1)  # [r, distinct values]
    group = np.empty(len(values), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
    return np.asarray((np.cumsum(equal, axis=1) - equal / 2)[:, group])


@lru_cache(maxsize=8)
def _times_drawn(count: int, resamples: int) -> NDArray[np.float64]:
    """How often each unit is in each resample of :func:`bootstrap`: ``[resamples, count]``."""
    rng = np.random.Generator(np.random.PCG64(0))
    rows = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(resamples)]
    return np.stack(rows).astype(np.float64)
