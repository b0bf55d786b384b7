"""Bias-free normalisation: only a weight, and statistics that explanation holds constant.

Uncentred norms divide by a root mean square; centred ones also subtract the mean, which is linear
and stays in the graph (mathematics §3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcos_kernels.mode import primal, weigh


def _accumulate(x: Tensor) -> Tensor:
    """Statistics are taken in fp32 at least, so that fp16 squares do not overflow."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class GroupNorm(nn.Module):
    """Normalise ``[N, C, *]`` over each group of channels and all positions, without a bias."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-6, centred: bool = False, affine: bool = True
    ):
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.centred = num_groups, num_channels, eps, centred
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"expected [N, {self.num_channels}, *], got {list(x.shape)}")
        groups = x.unflatten(1, (self.num_groups, -1))
        axes = tuple(range(2, groups.ndim))
        if self.centred:
            groups = groups - groups.mean(axes, keepdim=True)
        power = _accumulate(primal(groups)).pow(2).mean(axes, keepdim=True)
        out = weigh(groups, torch.rsqrt(power + self.eps).to(x.dtype)).flatten(1, 2)
        return out if self.weight is None else out * self.weight.view(-1, *[1] * (x.ndim - 2))


class LayerNorm(nn.Module):
    """Normalise the last dimension of ``[..., D]``, without a bias; centred by default."""

    def __init__(self, features: int, eps: float = 1e-6, centred: bool = True, affine: bool = True):
        super().__init__()
        self.features, self.eps, self.centred = features, eps, centred
        self.weight = nn.Parameter(torch.ones(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.features:
            raise ValueError(f"expected [..., {self.features}], got {list(x.shape)}")
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        power = _accumulate(primal(x)).pow(2).mean(-1, keepdim=True)
        out = weigh(x, torch.rsqrt(power + self.eps).to(x.dtype))
        return out if self.weight is None else out * self.weight


class RMSNorm(LayerNorm):
    """Divide the last dimension of ``[..., D]`` by its root mean square: an uncentred :class:`LayerNorm`."""

    def __init__(self, features: int, eps: float = 1e-6, affine: bool = True):
        super().__init__(features, eps, centred=False, affine=affine)
