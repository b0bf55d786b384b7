"""Attention rollout for a denoiser: what pixels heard of a word, passed on by their attention to each other.

"Quantifying Attention Flow in Transformers" (Abnar & Zuidema 2020) multiplies the attention of a transformer's layers,
each half and half with the identity for its residual. A denoiser has pixels at several resolutions that attend to each
other and to tokens. One pass of it rolls out a map ``R [P, L]``, what each pixel of the present resolution holds of
each token, in the order in which layers run. R is 0 at first; with Ā and C the mean over heads of the attention to
pixels and to tokens,

- attention to tokens:     R ← R + C;
- attention to pixels:     R ← (R + Ā R) / 2, whose rows ½ I + ½ Ā sum to 1;
- to a coarser resolution: R ← the mean over the pixels that become one;
- to a finer one:          R ← (R upscaled + R as it was when this resolution was left) / 2, linear between pixels: what
  comes from below and what the U-Net's skip connection brings, half and half as in a residual.

So C of every layer is carried on by all later attention and the sum of what arrives is R. At the end R is upscaled to
the image, linear too; a run adds up its steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.baselines.attention_maps import Call, hear_attention
from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.token_maps import attributed, one_step
from bcos_diffusion.job import Job
from bcos_diffusion.networks.denoiser import Denoiser
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch


class RolledOut:
    """The sum of what passes of a network rolled out so far. Hears every attention in order."""

    def __init__(self) -> None:
        self._step = -1
        self._total: Tensor | None = None
        self._now: Tensor | None = None  # [N, L, h, w] of this pass
        self._left: dict[tuple[int, ...], Tensor] = {}

    def hear(self, call: Call) -> None:
        """Roll the map on by one attention."""
        if call.step != self._step:
            self._finish()
            self._step = call.step
        if self._now is not None:
            self._move_to(call.grid)
        if call.cross:
            heard = call.probabilities().mean(1).mT.unflatten(2, call.grid)
            self._now = heard if self._now is None else self._now + heard
        elif self._now is not None:  # before any token was heard there is nothing to pass on
            self._now = (self._now + passed_on(call, self._now)) / 2

    def maps(self, size: tuple[int, ...]) -> Tensor:
        """The map of every token ``[N, L, H, W]`` in an image of ``size``. Raises ValueError where none was heard."""
        self._finish()
        if self._total is None:
            raise ValueError("no attention to tokens was heard, so there is nothing to roll out")
        return F.interpolate(self._total, size, mode="bilinear")

    def _finish(self) -> None:
        if self._now is not None:
            self._total = self._now if self._total is None else self._total + self._now
        self._now = None
        self._left.clear()

    def _move_to(self, grid: tuple[int, int]) -> None:
        assert self._now is not None
        here = tuple(self._now.shape[-2:])
        if grid < here:
            self._left[here] = self._now
            self._now = F.interpolate(self._now, grid, mode="area")
        elif grid > here:
            self._now = F.interpolate(self._now, grid, mode="bilinear")
            if grid in self._left:
                self._now = (self._now + self._left.pop(grid)) / 2


def passed_on(call: Call, maps: Tensor) -> Tensor:
    """Ā R: what pixels read of ``maps`` ``[N, L, h, w]``, the mean over heads, without Ā ``[N, P, P]`` in memory."""
    query, key = call.queries_and_keys()
    value = maps.flatten(2).mT[:, None].to(query).expand(-1, query.shape[1], -1, -1)  # [N, heads, P, L]
    read = F.scaled_dot_product_attention(query, key, value, scale=call.module.head_dim**-0.5)
    return read.mean(1).mT.unflatten(2, call.grid)


@contextmanager
def roll_out(network: Denoiser, rows: int = 1) -> Iterator[RolledOut]:
    """Roll out every pass of a network in the block; rows and errors as for :func:`hear_attention`."""
    rolled = RolledOut()
    with hear_attention(network, rolled.hear, rows):
        yield rolled


class Rollout:
    """Attention rollout as a method beside others."""

    name = "rollout"
    label = "attention rollout"

    def denoise(self, pipeline: BcosDiffusionPipeline, batch: TextBatch, x_t: Tensor, t: Tensor) -> Attributed:
        """Rollout of one unguided step; arguments and errors as for :class:`Attribution`."""
        with roll_out(pipeline.model.unet) as rolled:
            one_step(pipeline, batch, x_t, t)
        return attributed(rolled.maps(tuple(x_t.shape[-2:])), batch)

    def draw(self, pipeline: BcosDiffusionPipeline, job: Job) -> list[Attributed]:
        """Rollout of whole runs, of the prompts alone where there is guidance."""
        with roll_out(pipeline.model.unet, job.rows) as rolled, torch.no_grad():
            pipeline.draw(job)
        maps = rolled.maps(tuple(job.first.shape[-2:]))
        return [attributed(maps[i : i + 1], job.prompts(i)[:1]) for i in range(len(job))]
