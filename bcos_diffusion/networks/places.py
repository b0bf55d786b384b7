"""What networks learn of places in a picture: random waves to start from, and tables stretched to other sizes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_WAVE_HEIGHT = 0.8


def waves(side: int, channels: int, cycles: float) -> Tensor:
    """Random plane waves over a square, ``[side * side, channels]``, of ``cycles`` (root mean square) per axis."""
    middles = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    down, across = cycles * torch.randn(2, channels)
    turns = y.reshape(-1, 1) * down + x.reshape(-1, 1) * across + torch.rand(channels)  # [HW, C]
    return _WAVE_HEIGHT * torch.cos(2 * math.pi * turns)


def spread(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """What was learned per place of a square, ``[side * side, C]``, stretched over ``size``: ``[H * W, C]``.

    Linear between the places that were learned. A model has seen squares of its own size alone in training.
    """
    side = math.isqrt(len(grid))
    if size == (side, side):
        return grid
    square = grid.t().unflatten(1, (side, side))[None]
    return F.interpolate(square, size, mode="bilinear", align_corners=False)[0].flatten(1).t()
