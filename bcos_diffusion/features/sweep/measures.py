"""The numbers that cells are compared by, each with its interval, and by how much one cell is better than another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bcos_diffusion.evaluation.page.results import UNKNOWN, Number, number, part
from bcos_diffusion.evaluation.statistics import bootstrap_ratio
from bcos_diffusion.features.sweep.measure import OBJECT

Z95 = 1.959963984540054
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """One number of a cell. name: as tables call it; better: 1 where more is better, -1 where less is."""

    name: str
    factor: str = OBJECT
    better: int = 1
    scale: float = 100.0
    digits: int = 1
    unit: str = "%"

    def read(self, cell: Numbers | None) -> Number:
        """The number of a cell with its 95% interval; unknown where it was not measured."""
        raise NotImplementedError

    def gain(self, firsts: Sequence[Numbers | None], seconds: Sequence[Numbers | None]) -> Number:
        """By how much the first cells are better than the second ones in their order, on average, with its interval.

        Above 0 the first are better, whichever way the measure runs. Unknown where a number is.
        """
        raise NotImplementedError

    def show(self, value: Number) -> str:
        """A number with its interval, as texts have it."""
        return f"{value.text(self.scale, self.digits)}{self.unit} {value.interval(self.scale, self.digits)}".strip()

    def best(self, row: Mapping[str, Numbers]) -> str | None:
        """The layer of the best number; None where none has one."""
        known = {layer: self.read(cell).value for layer, cell in row.items()}
        known = {layer: value for layer, value in known.items() if not math.isnan(value)}
        return max(known, key=lambda layer: self.better * known[layer]) if known else None


@dataclass(frozen=True)
class PurityMeasure(Measure):
    """A mean over latents (:class:`~bcos_diffusion.features.latents.purity.Measures`). Its interval is of the latents:
    another dictionary of the same features might have them; images are the same."""

    statistic: str = "sigma"

    def read(self, cell: Numbers | None) -> Number:
        value, error = self._value_and_error(cell)
        return Number(value, value - Z95 * error, value + Z95 * error)

    def gain(self, firsts: Sequence[Numbers | None], seconds: Sequence[Numbers | None]) -> Number:
        pairs = list(zip(map(self._value_and_error, firsts), map(self._value_and_error, seconds), strict=True))
        if not pairs:
            return UNKNOWN
        value = self.better * sum(one[0] - other[0] for one, other in pairs) / len(pairs)
        error = math.sqrt(sum(one[1] ** 2 + other[1] ** 2 for one, other in pairs)) / len(pairs)
        return Number(value, value - Z95 * error, value + Z95 * error)

    def chance(self, cell: Numbers | None) -> Number:
        """The same of shuffled labels; its interval is two standard deviations over shuffles to either side."""
        value = number(part(cell, "purity", self.factor, "chance", self.statistic)).value
        spread = number(part(cell, "purity", self.factor, "spread", self.statistic)).value
        return Number(value, value - 2 * spread, value + 2 * spread)

    def _value_and_error(self, cell: Numbers | None) -> tuple[float, float]:
        value = number(part(cell, "purity", self.factor, "mean", self.statistic)).value
        return value, number(part(cell, "purity", self.factor, "error", self.statistic)).value


@dataclass(frozen=True)
class AccuracyMeasure(Measure):
    """Top-1 accuracy of a probe on its test images. path: where in a cell it is.

    Gains are paired: a bootstrap over images, on which both probes were judged.
    """

    path: tuple[str, ...] = ("diff_c",)

    def read(self, cell: Numbers | None) -> Number:
        found = part(cell, *self.path, self.factor) or {}
        return Number(*(number(found.get(name)).value for name in ("top1", "low", "high")))

    def gain(self, firsts: Sequence[Numbers | None], seconds: Sequence[Numbers | None]) -> Number:
        hits = [(self._hits(one), self._hits(other)) for one, other in zip(firsts, seconds, strict=True)]
        gained = [one - other for one, other in hits if one is not None and other is not None]
        if not hits or len(gained) < len(hits):
            return UNKNOWN
        mean = np.mean(gained, axis=0)
        return number(bootstrap_ratio(mean, np.ones_like(mean)))

    def _hits(self, cell: Numbers | None) -> NDArray[np.float64] | None:
        found = part(cell, *self.path, self.factor)
        if not found:
            return None
        return (np.asarray(found["predicted"]) == np.asarray(found["truth"])).astype(np.float64)


def sigma(factor: str = OBJECT) -> PurityMeasure:
    """σ_label, as the paper defines it: its value depends on how classes are numbered, which is equal in all cells."""
    return PurityMeasure("σ_label", factor, better=-1, scale=1.0, digits=2, unit="")


def top_share(factor: str = OBJECT) -> PurityMeasure:
    """The share of the most frequent class among a latent's top images, whatever numbers classes have."""
    return PurityMeasure("top images of one class", factor, statistic="majority")


def linear(factor: str = OBJECT) -> AccuracyMeasure:
    """The linear probe on vectors."""
    return AccuracyMeasure("linear probe", factor, path=("linear",))


DIFF_C = AccuracyMeasure("Diff-C")
DIFF_C_FEW = AccuracyMeasure("Diff-C, few images", path=("few", "diff_c"))
LINEAR_FEW = AccuracyMeasure("linear probe, few images", path=("few", "linear"))
SIGMA, TOP_SHARE, LINEAR = sigma(), top_share(), linear()
PROBES = (DIFF_C, DIFF_C_FEW, LINEAR, LINEAR_FEW)
JUDGED: tuple[Measure, ...] = (SIGMA, TOP_SHARE, DIFF_C, DIFF_C_FEW)
"""What claims are judged by: the paper's two measures, and each without its weakness on scenes: σ_label depends on the
numbering of classes, and Diff-C is near its ceiling where it has many images."""
