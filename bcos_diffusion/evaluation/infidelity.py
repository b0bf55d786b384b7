"""Infidelity (Yeh et al. 2019): how far what a method predicts of a perturbation is from what it does.

A perturbation takes a set of words out. Predicted is the sum of their scores (or of their maps, by pixel), true how far
the image moves. Methods give scores in units of their own, so each gets the one scale β over all images that suits it
best. The result is relative, each image counting alike: the mean over images of Σ_S (β p_S - t_S)² / Σ_S t_S². It is
1 for a method that predicts nothing (β = 0), and 0 for one that is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SETS = 31
"""How many sets of words an image is perturbed by, at most."""

Terms = tuple[float, float]
"""Of one image: Σ p² / Σ t² and Σ p t / Σ t², from which the error follows for any scale."""


def sets_of_words(among: Tensor, seed: int = 0) -> Tensor:
    """All sets of the words ``among`` ``[words]`` bool, but for the empty one; random ones where there are too many.

    Returns ``[M, words]`` bool, M at most :data:`SETS`, the same for a seed on every machine.
    """
    numbers = among.nonzero().flatten()
    count = len(numbers)
    if 2**count - 1 <= SETS:
        codes = torch.arange(1, 2**count)
        chosen = (codes[:, None] >> torch.arange(count)) % 2 == 1  # [M, K]
    else:
        draws = torch.rand(SETS, count, generator=torch.Generator().manual_seed(seed))
        chosen = (draws < 0.5) | (draws == draws.max(1, keepdim=True).values)  # none is empty
    sets = torch.zeros(len(chosen), len(among), dtype=torch.bool)
    sets[:, numbers] = chosen
    return sets


def terms(parts: Tensor, changes: Tensor, sets: Tensor) -> list[Terms]:
    """Both terms for each image; NaN where no set changes it.

    parts: scores ``[words, N]`` or maps ``[words, N, H, W]``; changes: what is true of every set, ``[M, N]`` or
    ``[M, N, H, W]``; sets: ``[M, words]`` bool.
    """
    predicted = torch.einsum("mw,wn...->mn...", sets.to(parts).double(), parts.double()).transpose(0, 1).flatten(1)
    true = changes.double().transpose(0, 1).flatten(1)  # [N, M * H * W]
    power = true.pow(2).sum(1)
    power = torch.where(power > 0, power, torch.nan)
    squares, products = predicted.pow(2).sum(1) / power, (predicted * true).sum(1) / power
    return list(zip(squares.tolist(), products.tolist(), strict=True))


def infidelity(images: Sequence[Terms]) -> float:
    """The error of a method over images at its best scale; NaN where there is none."""
    known = [(square, product) for square, product in images if not math.isnan(square)]
    if not known:
        return math.nan
    squares, products = (math.fsum(column) for column in zip(*known, strict=True))
    return 1.0 if squares == 0 else 1 - products**2 / (squares * len(known))
