"""The blocks of Stable Diffusion 2.1's U-Net (Rombach et al. 2022), of B-cos or of ordinary layers.

Where a layer stands, what it reads and how wide it is follows Stable Diffusion 2.1 in every block; ``Layers`` alone
decides which kind of layer it is. Queries and keys are linear in both kinds and have no bias in either: they steer,
and explanation holds them constant (Eq. 4 of the paper has a B-cos layer for values).
"""

from __future__ import annotations

from torch import Tensor, nn

from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.layers import Apart, Layers
from bcos_diffusion.networks.unet import TimeConditioning
from bcos_kernels.modules.attention import MultiHeadAttention
from bcos_kernels.modules.gates import GEGLU


def time_conditioning(kind: str, time_dim: int, channels: int, layers: Layers) -> TimeConditioning:
    """How a block reads the embedded timestep ``[N, time_dim]``: SiLU and a linear layer, as published.

    "additive" adds the result; its layer is of the network's kind. "scale" multiplies by one plus the result of a
    linear layer that starts from zero.
    """
    time = TimeConditioning(time_dim, channels, kind)
    if kind == "additive":
        time.project = Apart(layers.silu(), layers.linear(time_dim, channels))
    else:
        time.project = Apart(layers.silu(), time.project)
    return time


class ResidualBlock(nn.Module):
    """Two times norm, SiLU and convolution, with the timestep between them and a residual around them."""

    def __init__(self, in_channels: int, channels: int, time_dim: int, groups: int, time: str, layers: Layers):
        super().__init__()
        self.norm_1 = layers.group_norm(groups, in_channels, eps=1e-5)
        self.conv_1 = layers.conv(in_channels, channels, 3)
        self.time = time_conditioning(time, time_dim, channels, layers)
        self.norm_2 = layers.group_norm(groups, channels, eps=1e-5)
        self.conv_2 = layers.conv(channels, channels, 3)
        self.act = layers.silu()
        self.skip = layers.conv(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.time(self.conv_1(self.act(self.norm_1(x))), time)
        return self.skip(x) + self.conv_2(self.act(self.norm_2(h)))


class Attention(MultiHeadAttention):
    """Attention with values and output of the network's kind. The ordinary one has a bias in its output alone."""

    def __init__(self, channels: int, context_dim: int, head_dim: int, layers: Layers):
        value, out = layers.linear(context_dim, channels, bias=False), layers.linear(channels, channels)
        super().__init__(channels, context_dim, channels // head_dim, head_dim, value=value, out=out)


class FeedForward(nn.Sequential):
    """To four times the width through GEGLU, and back. ``[..., channels]``."""

    def __init__(self, channels: int, layers: Layers):
        super().__init__(layers.linear(channels, 8 * channels), GEGLU(), layers.linear(4 * channels, channels))


class SpatialTransformer(nn.Module):
    """Pixels attend to pixels and to tokens, and are fed forward, with residuals around each and around the whole."""

    def __init__(self, channels: int, context_dim: int, head_dim: int, groups: int, layers: Layers):
        super().__init__()
        self.norm = layers.group_norm(groups, channels, eps=1e-6)
        self.proj_in = layers.linear(channels, channels)
        self.norm_1 = layers.layer_norm(channels)
        self.pixels = Attention(channels, channels, head_dim, layers)
        self.norm_2 = layers.layer_norm(channels)
        self.tokens = Attention(channels, context_dim, head_dim, layers)
        self.norm_3 = layers.layer_norm(channels)
        self.feed_forward = FeedForward(channels, layers)
        self.proj_out = layers.linear(channels, channels)

    def forward(self, x: Tensor, text: Conditioning) -> Tensor:
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # [S N, HW, C]
        h = h + self.pixels(self.norm_1(h))
        h = h + self.tokens(self.norm_2(h), key_context=text.keys, value_context=text.values, key_mask=text.mask)
        h = h + self.feed_forward(self.norm_3(h))
        return x + self.proj_out(h).transpose(1, 2).unflatten(2, x.shape[2:])
