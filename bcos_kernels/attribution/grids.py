"""Grids of the pointing game: which images share one, how they are joined, and what falls into which cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def draw_grids(ranked: Mapping[int, Sequence[int]], cells: int, count: int, seed: int) -> list[list[int]]:
    """Choose up to ``count`` grids of ``cells`` images of different classes; returns the numbers of their images.

    ranked: image numbers by class, most confident first. As in B-cos-v2, each grid draws classes among those with
    images left and takes the most confident image left of each, so no image is used twice.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    left = {label: list(images) for label, images in sorted(ranked.items()) if images}
    grids: list[list[int]] = []
    while len(grids) < count and len(left) >= cells:
        drawn = rng.choice(list(left), cells, replace=False).tolist()
        grids.append([left[label].pop(0) for label in drawn])
        left = {label: images for label, images in left.items() if images}
    return grids


def stitch(images: Tensor, grid: int) -> Tensor:
    """Join ``[N, grid * grid, C, H, W]`` row by row to ``[N, C, grid * H, grid * W]``."""
    rows = images.unflatten(1, (grid, grid)).permute(0, 3, 1, 4, 2, 5)  # [N, C, grid, H, grid, W]
    return rows.flatten(4, 5).flatten(2, 3)


def shrink(images: Tensor, grid: int) -> Tensor:
    """Make images ``[N, C, H, W]`` ``grid`` times smaller, so that a grid of them has the size of one."""
    height, width = images.shape[-2:]
    if height % grid or width % grid:
        raise ValueError(f"images of {height} x {width} cannot be made {grid} times smaller: it must divide both sides")
    return F.interpolate(images, (height // grid, width // grid), mode="bilinear", antialias=True)


def cell_shares(maps: Tensor, grid: int, smooth: int) -> Tensor:
    """Share of the positive contributions of each map ``[*, H, W]`` that lies in each cell: ``[*, grid * grid]``.

    smooth: side of the window over which contributions are averaged first, 0 for none. A map without a positive
    contribution has shares of 0.
    """
    values = maps.double().reshape(-1, 1, *maps.shape[-2:])
    if smooth:
        values = F.avg_pool2d(values, smooth, stride=1, padding=(smooth - 1) // 2)
    cells = values.clamp(min=0).unflatten(3, (grid, -1)).unflatten(2, (grid, -1)).sum((3, 5)).flatten(1)
    total = cells.sum(1, keepdim=True)
    shares = torch.where(total > 0, cells / torch.where(total > 0, total, 1), 0)
    return shares.view(*maps.shape[:-2], grid * grid)
