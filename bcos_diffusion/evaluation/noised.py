"""Regime A's pictures: a real scene, noised to several levels, with the prompt that denoises it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bcos_diffusion.diffusion import T, add_noise, paired_noise
from bcos_diffusion.encoding import encode, from_pixels
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scene
from bcos_diffusion.text import TextBatch

SHARES = (0.2, 0.4, 0.6, 0.8)
"""Noise levels, as shares of T."""


@dataclass(frozen=True)
class Noised:
    """A scene at N levels. batch: its caption, one row; x_0: ``[1, 6, H, W]``; x_t: ``[N, 6, H, W]``; t: ``[N]``."""

    batch: TextBatch
    x_0: Tensor
    x_t: Tensor
    t: Tensor


def noise_scene(pipeline: BcosDiffusionPipeline, scene: Scene, seed: int) -> Noised:
    """Noise a scene to every level of :data:`SHARES`; the same noise for a seed on every machine."""
    device = pipeline.model.device
    batch = pipeline.model.tokenizer.encode([scene.caption]).to(device)
    x_0 = encode(from_pixels(scene.image)[None])
    t = torch.tensor([round(share * T) - 1 for share in SHARES])
    noise = paired_noise((len(t), *x_0.shape[1:]), torch.Generator().manual_seed(seed))
    x_t = add_noise(x_0, t, noise, pipeline.alpha_bar.cpu())
    return Noised(batch, x_0.to(device), x_t.to(device, pipeline.dtype), t.to(device))
