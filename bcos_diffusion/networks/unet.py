"""The text-conditioned B-cos U-Net: predicts x_0 in six channels from x_t, t and a prompt.

In its "scale" form no parameter is added to the image stream, so under explanation mode the
prediction is exactly  Σ_tokens W_i v_i + W_x x_t . Three design rules make those contributions
specific (see docs/explanations.md for the experiments):

- values speak, keys steer: the value of a token is its own embedding, never mixed with its
  neighbours; the contextual text encoder feeds the keys alone, which explanation holds constant;
- no normalisation between a token's value and the stream it is added to;
- the image stream is normalised after each convolution, where the layer is degree-1
  homogeneous, so norms rescale energy but never create it.

With ``layers="vanilla"`` the same network has ordinary layers: the twin that tells what all of this costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_diffusion.networks.config import ScenesConfig
from bcos_diffusion.networks.denoiser import Conditioning, Denoiser
from bcos_diffusion.networks.layers import Layers
from bcos_diffusion.networks.places import spread, waves
from bcos_diffusion.networks.time import TimeMLP, add_time
from bcos_kernels.mode import primal, weigh
from bcos_kernels.modules.attention import MultiHeadAttention


@dataclass(frozen=True)
class UNetConfig(ScenesConfig):
    """Shape of a :class:`UNet`; ``widths`` are the channels per level, each half the size of the last."""

    size: int = 32
    patch: int = 2
    widths: tuple[int, ...] = (80, 144, 208)
    blocks: int = 1
    self_attention: tuple[bool, ...] = (False, True, True)
    cross_attention: tuple[bool, ...] = (True, True, True)
    heads: int = 4
    text_dim: int = 128
    time_dim: int = 128
    b: float = 2.0
    attention_b: float = 1.0
    time_conditioning: str = "scale"
    layers: Literal["bcos", "vanilla"] = "bcos"
    noise_shift: float = 1.0

    def __post_init__(self) -> None:
        self.check_size_and_time()
        Layers(self.layers)
        for name in ("self_attention", "cross_attention"):
            if len(getattr(self, name)) != len(self.widths):
                raise ValueError(f"{name} needs one entry per level: {len(self.widths)}, got {getattr(self, name)}")

    @property
    def levels(self) -> int:
        """How many resolutions the network works at."""
        return len(self.widths)


class TimeConditioning(nn.Module):
    """Let the timestep act on the stream: ``h * (1 + γ(t))`` ("scale") or ``h + γ(t)`` ("additive")."""

    def __init__(self, time_dim: int, channels: int, kind: str):
        super().__init__()
        self.kind = kind
        project = nn.Linear(time_dim, channels, bias=False)
        nn.init.zeros_(project.weight)
        self.project: nn.Module = project

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        gamma = self.project(time)[:, :, None, None]  # [N, C, 1, 1]
        if self.kind == "scale":
            return weigh(h, 1 + gamma)
        return add_time(h, gamma)


class ResidualBlock(nn.Module):
    """Two B-cos convolutions with the timestep between them and a residual around them."""

    def __init__(self, in_channels: int, channels: int, config: UNetConfig):
        super().__init__()
        layers = config.curved
        self.conv_1 = layers.conv(in_channels, channels, 3)
        self.norm_1 = layers.group_norm(config.heads, channels)
        self.time = TimeConditioning(config.time_dim, channels, config.time_conditioning)
        # B-cos layers bend by their alignment; ordinary ones need a gate.
        self.act = layers.silu() if config.layers == "vanilla" else nn.Identity()
        self.conv_2 = layers.conv(channels, channels, 3)
        self.norm_2 = layers.group_norm(config.heads, channels)
        nn.init.constant_(cast(nn.Parameter, self.norm_2.weight), 0.5)
        self.skip = config.straight.conv(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.act(self.time(self.norm_1(self.conv_1(x)), time))
        return self.skip(x) + self.act(self.norm_2(self.conv_2(h)))


class PixelAttention(nn.Module):
    """Attention from pixels to pixels or to tokens, with a residual around it."""

    def __init__(self, channels: int, context_dim: int | None, side: int, config: UNetConfig):
        super().__init__()
        # Positions enter queries and keys only, which explanation holds constant: they steer, and add nothing.
        # Long waves tell left from right above the noise of x_t; words need that to be heard on one side.
        self.position = nn.Parameter(
            0.1 * torch.randn(side * side, channels) if context_dim is None else waves(side, channels, cycles=0.6)
        )
        self.norm = config.straight.group_norm(1, channels)
        ordinary = config.layers == "vanilla"
        self.attend = MultiHeadAttention(
            channels, context_dim, config.heads, channels // config.heads, config.attention_b,
            value=nn.Linear(context_dim or channels, channels, bias=False) if ordinary else None,
            out=nn.Linear(channels, channels) if ordinary else None,
        )  # fmt: skip
        # What a token says depends on where, by a constant factor per channel: with every pixel full of noise a
        # word alone can draw its shape. A factor adds nothing of its own, so all of it stays the word's.
        self.place = None if context_dim is None else nn.Parameter(waves(side, channels, cycles=1.2))

    def forward(self, x: Tensor, text: Conditioning | None) -> Tensor:
        h = x.flatten(2).transpose(1, 2)  # [S N, HW, C]
        side = (x.shape[2], x.shape[3])
        where = primal(self.norm(x)).flatten(2).transpose(1, 2) + spread(self.position, side)
        if text is None:
            h = h + self.attend(where, key_context=where, value_context=h)
        else:
            said = self.attend(where, key_context=text.keys, value_context=text.values, key_mask=text.mask)
            assert self.place is not None
            h = h + said * (1 + spread(self.place, side))
        return h.transpose(1, 2).unflatten(2, x.shape[2:])


class Stage(nn.Module):
    """A residual block at one resolution, then attention to pixels and to tokens where the level has them."""

    def __init__(self, in_channels: int, level: int, config: UNetConfig):
        super().__init__()
        channels, side = config.widths[level], config.size // config.patch // 2**level
        self.block = ResidualBlock(in_channels, channels, config)
        self.pixels = PixelAttention(channels, None, side, config) if config.self_attention[level] else None
        self.tokens = PixelAttention(channels, config.text_dim, side, config) if config.cross_attention[level] else None

    def forward(self, x: Tensor, time: Tensor, text: Conditioning) -> Tensor:
        x = self.block(x, time)
        if self.pixels is not None:
            x = self.pixels(x, None)
        return x if self.tokens is None else self.tokens(x, text)


class UNet(Denoiser):
    """Predict x_0 ``[N, 6, H, W]`` from x_t ``[N, 6, H, W]``, integer t ``[N]`` and a prompt."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        self.time_adds = config.time_conditioning == "additive"
        self.explainable = config.layers == "bcos"
        self.stride = config.stride
        widths = config.widths
        in_out = 6 * config.patch**2
        self.time = TimeMLP(config.time_dim)
        straight = config.straight
        self.conv_in = straight.conv(in_out, widths[0], 3)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.downsample, self.upsample = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(widths):
            self.down.append(nn.ModuleList(Stage(channels, level, config) for _ in range(config.blocks)))
            self.up.append(nn.ModuleList(Stage(2 * channels, level, config) for _ in range(config.blocks)))
            if level + 1 < len(widths):
                self.downsample.append(straight.conv(channels, widths[level + 1], 3, stride=2))
                self.upsample.append(straight.conv(widths[level + 1], channels, 1))
        self.norm_out = straight.group_norm(1, widths[0])
        self.conv_out = straight.conv(widths[0], in_out, 3)

    def forward(self, x_t: Tensor, t: Tensor, text: Conditioning) -> Tensor:
        """Predict x_0.

        x_t: ``[S * N, 6, H, W]``; t: ``[N]`` integers; returns the shape of ``x_t``. Under
        ``stacked(S)`` the parts after the first are tangents; in the "additive" form the last one
        is the tangent of the time conditioning.
        """
        self.check_input(x_t)
        time = self.time(t)
        h = self.conv_in(F.pixel_unshuffle(x_t, self.config.patch))
        kept: list[Tensor] = []
        for level, stages in enumerate(self.down):
            for stage in cast(nn.ModuleList, stages):
                h = stage(h, time, text)
                kept.append(h)
            if level < len(self.downsample):
                h = self.downsample[level](h)
        for level in reversed(range(len(self.up))):
            for stage in cast(nn.ModuleList, self.up[level]):
                h = stage(torch.cat([h, kept.pop()], dim=1), time, text)
            if level:
                h = self.upsample[level - 1](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.conv_out(self.norm_out(h)), self.config.patch)
