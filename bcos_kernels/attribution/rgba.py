"""A dynamic linear map as a picture: its colour is what the weights ask for, its opacity how strongly."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHANNELS = 6
"""Channels of an encoded image: (r, g, b, 1 - r, 1 - g, 1 - b)."""


def rgba_image(image: Tensor, weights: Tensor, smooth: int = 15, percentile: float = 99.5) -> Tensor:
    """Draw weights of the six colour channels as B-cos-v2 draws them: ``[*, 6, H, W]`` to RGBA ``[*, 4, H, W]``.

    image, weights: one shape and floating dtype, any number of batch dimensions. Colour: the positive weights of a
    channel against those of its complement. Alpha: the norm of a pixel's weights where its contribution is not
    negative, averaged over windows of ``smooth`` pixels (odd, 0 for none), divided by its ``percentile`` of the image
    and cut at 1. Returns values in [0, 1], float32 or float64. What has no positive contribution is transparent: there
    the library draws opaque noise or NaN. Raises ValueError. Source: ``gradient_to_image`` of B-cos-v2.
    """
    if image.shape != weights.shape or image.ndim < 3 or image.shape[-3] != CHANNELS:
        raise ValueError(
            f"image and weights must both be [*, {CHANNELS}, H, W], got {list(image.shape)} and {list(weights.shape)}"
        )
    if smooth < 0 or (smooth and smooth % 2 == 0):
        raise ValueError(f"smooth must be 0 or an odd number of pixels, got {smooth}")
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must be in [0, 100], got {percentile}")
    if not image.numel():
        raise ValueError(f"there is no pixel to draw in {list(image.shape)}")
    wide = torch.promote_types(torch.promote_types(image.dtype, weights.dtype), torch.float32)
    x, w = (part.detach().to(wide).reshape(-1, *image.shape[-3:]) for part in (image, weights))
    drawn = torch.cat([_colour(w), _alpha(x, w, smooth, percentile)], 1)
    return drawn.view(*image.shape[:-3], 4, *image.shape[-2:])


def _colour(w: Tensor) -> Tensor:
    """The share of each channel in its pair of positive weights, ``[N, 3, H, W]``; 0 for a pair without any."""
    largest = w.abs().amax(1, keepdim=True)
    positive = (w / torch.where(largest > 0, largest, 1)).clamp(min=0)  # else small weights would vanish in the sum
    pair = positive[:, :3] + positive[:, 3:]
    return positive[:, :3] / torch.where(pair > 0, pair, 1)


def _alpha(x: Tensor, w: Tensor, smooth: int, percentile: float) -> Tensor:
    """The strength of each pixel, ``[N, 1, H, W]``."""
    alpha = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    alpha = torch.where((x * w).sum(1, keepdim=True) < 0, 0, alpha)
    if smooth:
        alpha = F.avg_pool2d(alpha, smooth, stride=1, padding=(smooth - 1) // 2)
    cut = torch.quantile(alpha.flatten(1), percentile / 100, dim=1).view(-1, 1, 1, 1)
    return torch.where(cut > 0, alpha / torch.where(cut > 0, cut, 1), (alpha > 0).to(alpha.dtype)).clamp(max=1)
