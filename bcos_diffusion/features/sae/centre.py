"""What is known of features before training: where their middle is, and how far they lie from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SAMPLE = 32_768
"""Most rows that are looked at, as in OpenAI's sparse_autoencoder."""


@dataclass(frozen=True)
class Centre:
    """Of a sample of features. middle: geometric median ``[D]``; variance: mean squared distance from the mean."""

    middle: Tensor
    variance: float


def centre_of(sample: Tensor) -> Centre:
    """Middle and spread of a sample ``[S, D]``, S of 2 at least. Raises ValueError where all rows are one."""
    wide = sample.double()
    variance = float((wide - wide.mean(0)).square().sum(1).mean())
    if variance <= 1e-12 * float(wide.square().sum(1).mean()):
        raise ValueError(f"all {len(sample)} features looked at are the same: there is nothing to learn")
    return Centre(geometric_median(wide).to(sample.dtype), variance)


def geometric_median(points: Tensor, most: int = 100, tolerance: float = 1e-7) -> Tensor:
    """The point whose distances to ``[S, D]`` sum to the least, ``[D]``: Weiszfeld's iteration from the mean.

    An outlier moves it less than the mean. Ends after ``most`` steps, or when one is shorter than ``tolerance`` times
    the mean distance.
    """
    middle = points.mean(0)
    for _ in range(most):
        distances = (points - middle).norm(dim=1)
        typical = float(distances.mean())
        weights = 1 / distances.clamp_min(1e-9 * typical + torch.finfo(points.dtype).tiny)
        before, middle = middle, (weights @ points) / weights.sum()
        if float((middle - before).norm()) <= tolerance * typical:
            break
    return middle
