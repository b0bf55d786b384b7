"""How well a score tells words that were drawn from words that were not: curves as single numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bcos_diffusion.evaluation.statistics import bootstrap, ranks

BINS = 10
POINTS = 50
Words = Sequence[tuple[float, bool]]
"""The words of one picture: how far the score says that each was drawn, and whether it was."""


def auroc(scores: ArrayLike, drawn: ArrayLike) -> float:
    """How often a drawn word has more than a missing one, ties counted half; NaN without both."""
    y, present, missing = _counts(drawn)
    if not present or not missing:
        return math.nan
    return float((ranks(scores)[y].sum() - present * (present + 1) / 2) / (present * missing))


def auprc(scores: ArrayLike, drawn: ArrayLike) -> float:
    """Average precision of finding the *missing* words, which are those with the lowest scores; ties are one step."""
    y, present, missing = _counts(drawn)
    if not present or not missing:
        return math.nan
    values, group = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    found = np.cumsum(np.bincount(group, ~y, len(values)))  # from the lowest score up
    picked = np.cumsum(np.bincount(group, minlength=len(values)))
    return float(((found / picked) * np.diff(found, prepend=0)).sum() / missing)


def false_positive_rate(scores: ArrayLike, drawn: ArrayLike, recall: float = 0.95) -> float:
    """Share of drawn words called missing at the threshold that finds ``recall`` of the missing ones."""
    y, present, missing = _counts(drawn)
    if not present or not missing:
        return math.nan
    values = np.asarray(scores, np.float64)
    threshold = np.sort(values[~y])[math.ceil(recall * missing) - 1]
    return float((values[y] <= threshold).mean())


def calibration_error(probabilities: ArrayLike, drawn: ArrayLike) -> float:
    """Expected calibration error over bins of equal width (Naeini et al. 2015)."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(drawn, bool)
    if not len(p):
        return math.nan
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, p - y, BINS)
    return float(np.abs(gaps).sum() / len(p))


def reliability(probabilities: ArrayLike, drawn: ArrayLike) -> list[dict[str, float]]:
    """By bin of the probability that holds any word: how many, their mean probability, and the share drawn."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(drawn, bool)
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    held = [(bins == b) for b in range(BINS) if (bins == b).any()]
    return [{"words": int(h.sum()), "predicted": float(p[h].mean()), "drawn": float(y[h].mean())} for h in held]


def roc(scores: ArrayLike, drawn: ArrayLike) -> dict[str, list[float]]:
    """The curve whose area is :func:`auroc`: by threshold from below, at most :data:`POINTS` of them.

    x: share of drawn words called missing; y: share of missing words found; both empty without both kinds.
    """
    y, present, missing = _counts(drawn)
    if not present or not missing:
        return {"x": [], "y": []}
    values, group = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    wrong, found = (np.cumsum(np.bincount(group, kind, len(values))) for kind in (y, ~y))
    picked = np.unique(np.linspace(0, len(values), POINTS).round().astype(int))
    return {"x": np.r_[0, wrong / present][picked].tolist(), "y": np.r_[0, found / missing][picked].tolist()}


def equal_numbers_auroc(pictures: Sequence[Words]) -> float:
    """AUROC over pairs from pictures that name equally many objects.

    Among more objects each is missing more often, which the plain number would take for a sign.
    """
    won = pairs = 0.0
    for size in {len(p) for p in pictures}:
        scores, drawn = _flat([p for p in pictures if len(p) == size])
        _, present, missing = _counts(drawn)
        if present and missing:
            won += auroc(scores, drawn) * present * missing
            pairs += present * missing
    return won / pairs if pairs else math.nan


def flat_auroc(pictures: Sequence[Words]) -> float:
    """AUROC over the words of all pictures."""
    return auroc(*_flat(pictures))


def separation(pictures: Sequence[Words], probabilities: bool = False) -> dict[str, Any]:
    """All of the above, numbers with 95% intervals over pictures; those of calibration for ``probabilities`` alone."""

    def over(measure: Callable[[ArrayLike, ArrayLike], float]) -> dict[str, float]:
        return bootstrap(pictures, lambda chosen: measure(*_flat(chosen)))

    found: dict[str, Any] = {
        "auroc": bootstrap(pictures, flat_auroc),
        "auroc_of_equal_numbers": bootstrap(pictures, equal_numbers_auroc),
        "auprc": over(auprc),
        "fpr_at_95": over(false_positive_rate),
        "roc": roc(*_flat(pictures)),
    }
    if probabilities:
        found["calibration_error"] = over(calibration_error)
        found["reliability"] = reliability(*_flat(pictures))
    return found


def _flat(pictures: Sequence[Words]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    words = [word for picture in pictures for word in picture]
    return np.array([score for score, _ in words], np.float64), np.array([drawn for _, drawn in words], bool)


def _counts(drawn: ArrayLike) -> tuple[NDArray[np.bool_], int, int]:
    y = np.asarray(drawn, bool)
    return y, int(y.sum()), int((~y).sum())
