"""The few statistics that the protocol needs: ranks with ties, Spearman's rho, bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Unit = TypeVar("Unit")

RESAMPLES = 1000


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
    value = statistic(units) if units else math.nan
    if math.isnan(value):
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    rng = np.random.Generator(np.random.PCG64(0))
    drawn = [statistic([units[i] for i in rng.integers(len(units), size=len(units))]) for _ in range(RESAMPLES)]
    known = np.array([d for d in drawn if not math.isnan(d)])
    low, high = np.quantile(known, [0.025, 0.975], method="nearest")
    return {"value": value, "low": float(low), "high": float(high)}
