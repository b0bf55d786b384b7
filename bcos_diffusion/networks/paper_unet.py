"""The U-Net of the paper: that of Stable Diffusion 2.1 in pixel space, of B-cos or of ordinary layers.

As in Appendix C: six channels in and out instead of a VAE's four, one residual block per level instead of two, and
the channels are not doubled after the first downsampling. Nothing in it knows where a pixel is, so it takes pictures
of any height and width that its strides divide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_diffusion.networks.config import NetworkConfig
from bcos_diffusion.networks.denoiser import PREDICTIONS, Conditioning, Denoiser
from bcos_diffusion.networks.layers import Apart, Layers
from bcos_diffusion.networks.paper_blocks import ResidualBlock, SpatialTransformer
from bcos_diffusion.networks.time import timestep_embedding


@dataclass(frozen=True)
class PaperUNetConfig(NetworkConfig):
    """Shape of a :class:`PaperUNet`; by default the paper's.

    patch: side in pixels of what the first level sees as one, 1 in the paper; channels: per level, each of half the
    size of the last; attention: which levels attend to pixels and tokens, the middle always does; groups: of the
    group norms; text_dim: width of a token; layers: "bcos" or "vanilla". Raises ValueError for what cannot be.
    """

    size: int = 64
    patch: int = 1
    channels: tuple[int, ...] = (320, 320, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    blocks: int = 1
    head_dim: int = 64
    groups: int = 32
    text_dim: int = 1024
    layers: str = "bcos"
    b: float = 2.0
    convention: str = "C"
    time_conditioning: str = "additive"
    predicts: str = "x_0"

    def __post_init__(self) -> None:
        self.check_size_and_time()
        if self.predicts not in PREDICTIONS:
            raise ValueError(f"predicts must be one of {PREDICTIONS}, got {self.predicts!r}")
        if len(self.attention) != len(self.channels):
            raise ValueError(f"attention needs one entry per level: {len(self.channels)}, got {self.attention}")
        for width in self.channels:
            if width % self.groups or width % self.head_dim:
                raise ValueError(
                    f"channels must be multiples of groups ({self.groups}) and head_dim ({self.head_dim}), got {width}"
                )
        Layers(self.layers)

    @property
    def levels(self) -> int:
        """How many resolutions the network works at."""
        return len(self.channels)


class Stage(nn.Module):
    """A residual block and, where the level attends, a transformer."""

    def __init__(self, in_channels: int, channels: int, attends: bool, config: PaperUNetConfig, layers: Layers):
        super().__init__()
        self.block = ResidualBlock(
            in_channels, channels, 4 * config.channels[0], config.groups, config.time_conditioning, layers
        )
        self.transformer = (
            SpatialTransformer(channels, config.text_dim, config.head_dim, config.groups, layers) if attends else None
        )

    def forward(self, x: Tensor, time: Tensor, text: Conditioning) -> Tensor:
        x = self.block(x, time)
        return x if self.transformer is None else self.transformer(x, text)


class PaperUNet(Denoiser):
    """Predict x_0 or the noise ``[N, 6, H, W]`` from x_t ``[N, 6, H, W]``, integer t ``[N]`` and a prompt.

    H and W are multiples of ``config.stride``. With ordinary layers it can be trained and sampled, not explained.
    """

    def __init__(self, config: PaperUNetConfig):
        super().__init__()
        self.config = config
        self.stride, self.predicts = config.stride, config.predicts
        self.time_adds = config.time_conditioning == "additive"
        self.explainable = config.layers == "bcos"
        layers = Layers(config.layers, config.b, config.convention)
        first, last = config.channels[0], config.channels[-1]
        self.time = Apart(layers.linear(first, 4 * first), layers.silu(), layers.linear(4 * first, 4 * first))
        self.conv_in = layers.conv(6 * config.patch**2, first, 3)
        self.down, self.downsample = nn.ModuleList(), nn.ModuleList()
        kept = [first]  # channels of what the way up reads again
        for level, channels in enumerate(config.channels):
            stages = nn.ModuleList()
            for number in range(config.blocks):
                in_channels = channels if number else kept[-1]
                stages.append(Stage(in_channels, channels, config.attention[level], config, layers))
                kept.append(channels)
            self.down.append(stages)
            if level + 1 < len(config.channels):
                self.downsample.append(layers.conv(channels, channels, 3, stride=2))
                kept.append(channels)
        self.middle = nn.ModuleList([Stage(last, last, True, config, layers), Stage(last, last, False, config, layers)])
        self.up, self.upsample = nn.ModuleList(), nn.ModuleList()
        coming = last
        for level in reversed(range(len(config.channels))):
            channels = config.channels[level]
            stages = nn.ModuleList()
            for _ in range(config.blocks + 1):
                stages.append(Stage(coming + kept.pop(), channels, config.attention[level], config, layers))
                coming = channels
            self.up.append(stages)
            if level:
                self.upsample.append(layers.conv(channels, channels, 3))
        self.norm_out = layers.group_norm(config.groups, first, eps=1e-5)
        self.act_out = layers.silu()
        self.conv_out = layers.conv(first, 6 * config.patch**2, 3)

    def forward(self, x_t: Tensor, t: Tensor, text: Conditioning) -> Tensor:
        """Predict what ``predicts`` says.

        x_t: ``[S * N, 6, H, W]``; t: ``[N]`` integers; returns the shape of ``x_t``. Under ``stacked(S)`` the parts
        after the first are tangents; in the "additive" form the last one is the tangent of the time conditioning.
        """
        self.check_input(x_t)
        dtype = next(self.parameters()).dtype
        time = self.time(timestep_embedding(t, self.config.channels[0]).to(dtype))
        h = self.conv_in(F.pixel_unshuffle(x_t, self.config.patch))
        kept = [h]
        for level, stages in enumerate(self.down):
            for stage in cast(nn.ModuleList, stages):
                h = stage(h, time, text)
                kept.append(h)
            if level < len(self.downsample):
                h = self.downsample[level](h)
                kept.append(h)
        for stage in self.middle:
            h = stage(h, time, text)
        for level, stages in enumerate(self.up):
            for stage in cast(nn.ModuleList, stages):
                h = stage(torch.cat([h, kept.pop()], dim=1), time, text)
            if level < len(self.upsample):
                h = self.upsample[level](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.conv_out(self.act_out(self.norm_out(h))), self.config.patch)
