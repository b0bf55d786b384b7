"""Bias-free normalisation: only a weight, and statistics that explanation holds constant.

Uncentred norms divide by a root mean square; centred ones also subtract the mean, which is linear
and stays in the graph (mathematics §3). fp16 and bf16 inputs are normalised in fp32 and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcos_kernels.mode import primal, weigh
from bcos_kernels.modules.precision import accumulate


def _normalise(x: Tensor, axes: tuple[int, ...], eps: float, centred: bool) -> Tensor:
    """Divide x by its root mean square (its standard deviation when centred) over ``axes``."""
    if centred:
        x = x - x.mean(axes, keepdim=True)
    power = primal(x).pow(2).mean(axes, keepdim=True)
    return weigh(x, torch.rsqrt(power + eps))


class GroupNorm(nn.Module):
    """Normalise ``[N, C, *]`` over each group of channels and all positions, without a bias."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-6, centred: bool = False, affine: bool = True
    ):
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.centred = num_groups, num_channels, eps, centred
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"expected [N, {self.num_channels}, *], got {list(x.shape)}")
        groups = accumulate(x).unflatten(1, (self.num_groups, -1))
        out = _normalise(groups, tuple(range(2, groups.ndim)), self.eps, self.centred).flatten(1, 2)
        if self.weight is not None:
            out = out * self.weight.view(-1, *[1] * (x.ndim - 2))
        return out.to(x.dtype)

    def extra_repr(self) -> str:
        """Constructor arguments, as nn.GroupNorm prints them."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, centred={self.centred}"


class LayerNorm(nn.Module):
    """Normalise the last dimension of ``[..., D]``, without a bias; centred by default."""

    def __init__(self, features: int, eps: float = 1e-6, centred: bool = True, affine: bool = True):
        super().__init__()
        self.features, self.eps, self.centred = features, eps, centred
        self.weight = nn.Parameter(torch.ones(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.features:
            raise ValueError(f"expected [..., {self.features}], got {list(x.shape)}")
        out = _normalise(accumulate(x), (-1,), self.eps, self.centred)
        return (out if self.weight is None else out * self.weight).to(x.dtype)

    def extra_repr(self) -> str:
        """Constructor arguments, as nn.LayerNorm prints them."""
        return f"{self.features}, eps={self.eps}, centred={self.centred}"


class RMSNorm(LayerNorm):
    """Divide the last dimension of ``[..., D]`` by its root mean square: an uncentred :class:`LayerNorm`."""

    def __init__(self, features: int, eps: float = 1e-6, affine: bool = True):
        super().__init__(features, eps, centred=False, affine=affine)
