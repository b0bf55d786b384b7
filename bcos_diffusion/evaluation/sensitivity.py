"""Max-sensitivity (Yeh et al. 2019): how far an explanation moves when what it explains hardly does."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_diffusion.baselines.attribution import Attribution
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch

RADIUS = 0.02
DRAWS = 10


def max_sensitivity(
    method: Attribution,
    pipeline: BcosDiffusionPipeline,
    batch: TextBatch,
    x_t: Tensor,
    t: Tensor,
    radius: float = RADIUS,
    draws: int = DRAWS,
    seed: int = 0,
) -> Tensor:
    """The largest relative change ‖Φ(x_t + δ) - Φ(x_t)‖ / ‖Φ(x_t)‖ of the maps of all words: ``[N]``.

    δ is uniform in [-radius, radius], drawn ``draws`` times, and leaves the sums of complementary channels as they are.
    Arguments and errors as for :meth:`Attribution.denoise`; NaN for an image without any map.
    """
    generator = torch.Generator().manual_seed(seed)
    maps = method.denoise(pipeline, batch, x_t, t).maps.double()
    largest = torch.zeros(len(x_t), dtype=torch.float64, device=maps.device)
    for _ in range(draws):
        rgb = radius * (2 * torch.rand(len(x_t), 3, *x_t.shape[2:], generator=generator) - 1)
        moved = x_t + torch.cat([rgb, -rgb], 1).to(x_t)
        gap = method.denoise(pipeline, batch, moved, t).maps.double() - maps
        largest = torch.maximum(largest, _norm(gap))
    return largest / torch.where(_norm(maps) > 0, _norm(maps), torch.nan)


def _norm(maps: Tensor) -> Tensor:
    return maps.transpose(0, 1).flatten(1).norm(dim=1)
