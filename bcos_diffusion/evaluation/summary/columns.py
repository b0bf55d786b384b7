"""One measure of one method over scenes: sums and counts by scene, so that scenes can be resampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.evaluation.setup import Record
from bcos_diffusion.evaluation.statistics import bootstrap_ratio, bootstrap_ratios
from bcos_diffusion.evaluation.summary.methods import ran

Interval = dict[str, float]
Take = Callable[[Record, Record], Sequence[Sequence[float | None]]]
"""From what a record says of a model, and of one method there, to the numbers ``[items, levels]`` of its words; None
where there is no number."""


@dataclass(frozen=True)
class Column:
    """Sums and counts ``[n, levels]`` of n scenes, whose numbers are ``scenes`` ``[n]``."""

    scenes: NDArray[np.int64]
    sums: NDArray[np.float64]
    counts: NDArray[np.float64]

    def interval(self, level: int | None = None) -> Interval:
        """The mean over all that is counted, at one level or over all of them."""
        return bootstrap_ratio(*self._sides(level))

    def minus(self, other: Column) -> Interval:
        """How much larger this mean is than another one, on the scenes that both have; the difference is paired."""
        return self._beside(other, lambda ratios: ratios[..., 0] - ratios[..., 1])

    def over(self, other: Column) -> Interval:
        """How many times larger this mean is than another one, on the scenes that both have."""
        return self._beside(other, lambda ratios: ratios[..., 0] / ratios[..., 1])

    def shared(self, other: Column) -> int:
        """How many scenes both have."""
        return len(np.intersect1d(self.scenes, other.scenes))

    def _beside(self, other: Column, combine: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Interval:
        _, mine, others = np.intersect1d(self.scenes, other.scenes, return_indices=True)
        pairs = [self._sides(None), other._sides(None)]
        above, below = (
            np.stack([pairs[0][side][mine], pairs[1][side][others]], axis=1) for side in (0, 1)
        )  # [shared scenes, 2]
        return bootstrap_ratios(above, below, combine)

    def _sides(self, level: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if level is None:
            return self.sums.sum(1), self.counts.sum(1)
        return self.sums[:, level], self.counts[:, level]


def column(records: Sequence[Record], model: str, method: str, take: Take) -> Column:
    """The numbers of one method on one model ("model" or "twin"), over the scenes that it ran on."""
    judged = ran(records, model, method)
    levels = max((len(r[model]["methods"][method]["function_mass"]) for r in judged), default=1)
    sums, counts = np.zeros((len(judged), levels)), np.zeros((len(judged), levels))
    for place, record in enumerate(judged):
        taken = take(record[model], record[model]["methods"][method])
        rows = np.array(taken, np.float64).reshape(-1, levels)  # None becomes NaN
        sums[place], counts[place] = np.nansum(rows, 0), (~np.isnan(rows)).sum(0)
    return Column(np.array([r["scene"] for r in judged], np.int64), sums, counts)
