"""Bend, blur, tint, mottle and grain pictures as an unsure generator does; their classes bend along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_KNOTS = 6
_SPOTS = 12
_RADIUS = 3


@dataclass(frozen=True)
class Degradation:
    """What is done to one picture. bend: ``[2, 6, 6]`` pixels; blur: sigma in pixels; gain, shift: ``[3]``;
    mottles: ``[3, 12, 12]``; grain: ``[3, H, W]``."""

    bend: NDArray[np.float32]
    blur: float
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    mottles: NDArray[np.float32]
    grain: NDArray[np.float32]


def draw(rng: np.random.Generator, size: int) -> Degradation:
    """A degradation at random; each of its parts is weak or absent more often than strong."""
    bend = rng.uniform(0, 1.8) * rng.standard_normal((2, _KNOTS, _KNOTS), np.float32)
    blur = rng.uniform(0.3, 1.2) if rng.random() < 0.6 else 0.0
    gain, shift = 1 + rng.uniform(-0.12, 0.12, 3), rng.uniform(-0.05, 0.05, 3)
    mottles = rng.uniform(0, 0.06) * rng.standard_normal((3, _SPOTS, _SPOTS), np.float32)
    grain = max(0.0, rng.uniform(-0.02, 0.05)) * rng.standard_normal((3, size, size), np.float32)
    kept = (np.asarray(part, np.float32) for part in (gain, shift, mottles, grain))
    return Degradation(bend.astype(np.float32), blur, *kept)


def degrade(pictures: Tensor, classes: Tensor, how: list[Degradation]) -> tuple[Tensor, Tensor]:
    """Degrade pictures ``[N, 3, H, W]`` in [0, 1], each in its way; classes ``[N, H, W]`` bend with them."""
    size = pictures.shape[-2:]
    bend = _smooth(torch.from_numpy(np.stack([h.bend for h in how])), size)
    grid = _grid(bend)
    x = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    y = F.grid_sample(classes[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    x = _blur(x, [h.blur for h in how])
    gain, shift = (
        torch.from_numpy(np.stack(part))[:, :, None, None]
        for part in zip(*((h.gain, h.shift) for h in how), strict=True)
    )
    x = x * gain + shift + _smooth(torch.from_numpy(np.stack([h.mottles for h in how])), size)
    return (x + torch.from_numpy(np.stack([h.grain for h in how]))).clamp(0, 1), y[:, 0].long()


def _smooth(knots: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(knots, size=tuple(size), mode="bilinear", align_corners=True)


def _grid(bend: Tensor) -> Tensor:
    """Where each pixel is read: its own place moved by ``bend`` ``[N, 2, H, W]`` pixels, as grid_sample counts."""
    n, _, height, width = bend.shape
    theta = torch.eye(2, 3).expand(n, 2, 3)
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
    return grid + bend.permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height])


def _blur(pictures: Tensor, sigmas: list[float]) -> Tensor:
    """A Gaussian of its own for each picture."""
    n, channels, height, width = pictures.shape
    far = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float32)
    sigma = torch.tensor(sigmas).clamp(min=1e-3)[:, None]
    row = torch.exp(-far.pow(2) / (2 * sigma.pow(2)))
    row = (row / row.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]  # [N * 3, 1, 7]
    x = F.pad(pictures, (_RADIUS,) * 4, mode="replicate").flatten(0, 1)[None]
    x = F.conv2d(x, row[:, :, :, None], groups=n * channels)
    return F.conv2d(x, row[:, :, None], groups=n * channels)[0].view(n, channels, height, width)
