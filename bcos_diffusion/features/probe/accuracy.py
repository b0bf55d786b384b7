"""Top-1 accuracy with its interval, per class, confusions, and the margin of one classifier over another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.evaluation.statistics import bootstrap_ratio

_Z95 = 1.959963984540054


def wilson(correct: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927): within [0, 1], and not a point at 0 or 1. NaN for no images."""
    if count == 0:
        return math.nan, math.nan
    share, weight = correct / count, _Z95**2 / count
    middle = (share + weight / 2) / (1 + weight)
    reach = _Z95 / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    # At 0 and at all the interval ends there exactly; rounding would leave it beside.
    return (0.0 if correct == 0 else middle - reach), (1.0 if correct == count else middle + reach)


@dataclass(frozen=True)
class Accuracy:
    """What a classifier said of images. predicted, truth: int64 ``[N]`` from 0 to ``classes`` - 1, on the CPU.

    Raises ValueError for other shapes, labels out of range or no images.
    """

    predicted: Tensor
    truth: Tensor
    classes: int

    def __post_init__(self) -> None:
        if self.predicted.shape != self.truth.shape or self.truth.ndim != 1 or not len(self.truth):
            shapes = f"{list(self.predicted.shape)} and {list(self.truth.shape)}"
            raise ValueError(f"predicted and truth must be [N] of at least one image, got {shapes}")
        for name, labels in (("predicted", self.predicted), ("truth", self.truth)):
            if labels.dtype != torch.int64 or int(labels.min()) < 0 or int(labels.max()) >= self.classes:
                raise ValueError(f"{name} must be int64 from 0 to {self.classes - 1}")

    @property
    def hits(self) -> Tensor:
        """Which images were told rightly: bool ``[N]``."""
        return self.predicted == self.truth

    @property
    def count(self) -> int:
        """How many images were judged."""
        return len(self.truth)

    @property
    def top1(self) -> float:
        """The share of images told rightly."""
        return int(self.hits.sum()) / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of :attr:`top1` (:func:`wilson`)."""
        return wilson(int(self.hits.sum()), self.count)

    @property
    def confusion(self) -> Tensor:
        """How many images of a class (row) were told as a class (column): int64 ``[classes, classes]``."""
        pairs = self.truth * self.classes + self.predicted
        return pairs.bincount(minlength=self.classes**2).view(self.classes, self.classes)

    @property
    def per_class(self) -> Tensor:
        """The share of each class told rightly: float64 ``[classes]``, NaN for a class without images."""
        confusion = self.confusion.double()
        return confusion.diagonal() / confusion.sum(1)

    @property
    def balanced(self) -> float:
        """The mean of :attr:`per_class` over the classes that have images."""
        return float(self.per_class.nanmean())

    def to_dict(self) -> dict[str, Any]:
        """As JSON; a class without images has no accuracy (None)."""
        low, high = self.interval
        per_class = [None if math.isnan(share) else share for share in self.per_class.tolist()]
        return {
            "top1": self.top1, "low": low, "high": high, "images": self.count, "balanced": self.balanced,
            "per_class": per_class,
        }  # fmt: skip

    def said(self) -> dict[str, list[int]]:
        """What was said of each image beside its truth, so that two classifiers can be compared image by image."""
        return {"predicted": self.predicted.tolist(), "truth": self.truth.tolist()}


def margin(first: Accuracy, second: Accuracy) -> dict[str, float]:
    """By how much ``first`` is more accurate than ``second`` on the same images: ``value``, ``low``, ``high``.

    The 95% interval is of a bootstrap over images, paired, so that what is hard for both does not widen it. Raises
    ValueError where the two were not judged on images of the same labels.
    """
    if first.truth.shape != second.truth.shape or not bool((first.truth == second.truth).all()):
        raise ValueError("a margin is between two classifiers judged on the same images in the same order")
    gained = first.hits.double() - second.hits.double()
    return bootstrap_ratio(gained.numpy(), torch.ones_like(gained).numpy())
