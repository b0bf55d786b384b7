"""The blocks of the diffusion transformer, of B-cos or of ordinary layers.

As in DiT (Peebles & Xie 2023): attention among patches and an MLP, each scaled and gated by the timestep; words are
heard by attention between the two, as in PixArt-α (Chen et al. 2024). A residual goes around each. What keeps words
apart is as in the scenes U-Net: their values reach the stream without a norm, positions steer and add nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.places import spread, waves
from bcos_diffusion.networks.time import add_time
from bcos_kernels.mode import primal, weigh
from bcos_kernels.modules.attention import MultiHeadAttention
from bcos_kernels.modules.norms import RMSNorm

if TYPE_CHECKING:
    from bcos_diffusion.networks.dit import DiTConfig

_GATE = 0.5
"""How far the branches of a block of B-cos layers are open at first."""


def norm(config: DiTConfig, learned: bool = True) -> nn.Module:
    """A norm of each patch: uncentred and without a bias, or the ordinary layer norm; ``learned``: with a weight."""
    if config.layers == "vanilla":
        return nn.LayerNorm(config.width, eps=1e-6, elementwise_affine=learned)
    return RMSNorm(config.width, affine=learned)


class Modulation(nn.Module):
    """What the timestep does to a block: ``factors`` of one plus what it says, and ``shifts`` that it adds.

    All start from the same at every timestep.
    """

    def __init__(self, time_dim: int, width: int, parts: int):
        super().__init__()
        self.parts = parts
        self.project = nn.Linear(time_dim, parts * width, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        """``[N, time_dim]`` to ``parts`` of ``[N, 1, width]``."""
        return self.project(time)[:, None].chunk(self.parts, dim=2)


class PatchAttention(nn.Module):
    """Attention from patches to patches, which know where they are in queries and keys alone."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        width, ordinary = config.width, config.layers == "vanilla"
        self.position = nn.Parameter(0.1 * torch.randn(config.side**2, width))
        self.attend = MultiHeadAttention(
            width, width, config.heads, width // config.heads, config.attention_b,
            value=nn.Linear(width, width) if ordinary else None,
            out=nn.Linear(width, width) if ordinary else None,
        )  # fmt: skip

    def forward(self, h: Tensor, size: tuple[int, int]) -> Tensor:
        where = primal(h) + spread(self.position, size)
        return self.attend(where, key_context=where, value_context=h)


class TokenAttention(nn.Module):
    """Attention from patches to words. What a word says is multiplied by a learned factor per place and channel."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        width, ordinary = config.width, config.layers == "vanilla"
        # As in the scenes U-Net: long waves tell left from right above the noise of x_t, and with every patch full of
        # noise a word can draw its shape by itself.
        self.position = nn.Parameter(waves(config.side, width, cycles=0.6))
        self.place = nn.Parameter(waves(config.side, width, cycles=1.2))
        self.norm = norm(config)
        self.attend = MultiHeadAttention(
            width, config.text_dim, config.heads, width // config.heads, config.attention_b,
            value=nn.Linear(config.text_dim, width, bias=False) if ordinary else None,
            out=nn.Linear(width, width) if ordinary else None,
        )  # fmt: skip

    def forward(self, h: Tensor, text: Conditioning, size: tuple[int, int]) -> Tensor:
        where = primal(self.norm(h)) + spread(self.position, size)
        said = self.attend(where, key_context=text.keys, value_context=text.values, key_mask=text.mask)
        return said * (1 + spread(self.place, size))


class FeedForward(nn.Sequential):
    """Each patch by itself to ``mlp`` times the width and back.

    B-cos layers bend by their alignment and shrink what they read, so norms come after them, as in the scenes U-Net;
    ordinary ones need a GELU between them.
    """

    def __init__(self, config: DiTConfig):
        width, wide = config.width, config.mlp * config.width
        curved = config.curved
        if config.layers == "vanilla":
            super().__init__(curved.linear(width, wide), nn.GELU(approximate="tanh"), curved.linear(wide, width))
        else:
            super().__init__(curved.linear(width, wide), RMSNorm(wide), curved.linear(wide, width), RMSNorm(width))


class Block(nn.Module):
    """Patches attend to patches and to words, and are fed forward; ``joins``: reads an earlier block's output too."""

    def __init__(self, config: DiTConfig, joins: bool):
        super().__init__()
        width, self.adds = config.width, config.time_conditioning == "additive"
        self.ordinary = config.layers == "vanilla"
        self.join = config.straight.linear(2 * width, width) if joins else None
        self.time = Modulation(config.time_dim, width, parts=7 if self.adds else 5)
        self.norm_1 = norm(config, learned=False)
        self.patches = PatchAttention(config)
        self.tokens = TokenAttention(config)
        # B-cos layers are homogeneous and have a norm after them: one before them would change nothing.
        self.norm_2 = norm(config, learned=False) if self.ordinary else nn.Identity()
        self.feed_forward = FeedForward(config)

    def forward(
        self, h: Tensor, time: Tensor, text: Conditioning, size: tuple[int, int], kept: Tensor | None = None
    ) -> Tensor:
        """h: ``[S * N, P, D]``, patches of ``size`` (rows, columns); kept: what an earlier block gave, of h's shape."""
        if self.join is not None:
            assert kept is not None
            h = self.join(torch.cat([h, kept], dim=2))
        scale_1, gate_1, gate_tokens, scale_2, gate_2, *shifts = self.time(time)
        # Ordinary branches are shut at first, as published (adaLN-Zero).
        start = 0.0 if self.ordinary else _GATE
        read = weigh(self.norm_1(h), 1 + scale_1)
        read = add_time(read, shifts[0]) if shifts else read
        h = h + weigh(self.patches(read, size), start + gate_1)
        h = h + weigh(self.tokens(h, text, size), 1 + gate_tokens)
        read = weigh(self.norm_2(h), 1 + scale_2)
        read = add_time(read, shifts[1]) if shifts else read
        return h + weigh(self.feed_forward(read), start + gate_2)
