"""From maps of tokens to what every method gives: a map and a score per word."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.subject import repeated
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch
from bcos_diffusion.text.words import word_positions


def word_maps(tokens: Tensor, batch: TextBatch) -> Tensor:
    """The map of a word is the mean of those of its visible tokens, 0 where it has none.

    tokens: ``[N, L, H, W]``; batch: one prompt. Returns ``[words, N, H, W]``.
    """
    positions = word_positions(batch).to(tokens)  # [words, L]
    shares = positions / positions.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("kl,nlhw->knhw", shares, tokens)


def attributed(tokens: Tensor, batch: TextBatch) -> Attributed:
    """Maps of words as :func:`word_maps`; the score of a word is the mean of its map over pixels."""
    maps = word_maps(tokens, batch).float()
    return Attributed(maps, maps.mean((-2, -1)))


@torch.no_grad()
def one_step(pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Tensor:
    """What the network predicts of N states ``x_t`` ``[N, 6, H, W]`` at ``t`` ``[N]`` with one prompt, unguided.

    Raises ValueError for more than one prompt.
    """
    if len(batch.ids) != 1:
        raise ValueError(f"one prompt is explained at a time, got {len(batch.ids)}")
    return pipeline.model.unet(x_t, t, repeated(pipeline.model.condition(batch), len(x_t)))
