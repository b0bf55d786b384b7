"""Bias-free normalisation: only a weight, and statistics that explanation holds constant.

Centred norms subtract the mean, which is linear and stays in the graph (mathematics §3), and divide by the standard
deviation. Uncentred ones divide by a root mean square or, with ``about_mean``, by the standard deviation too, as the
uncentred norms of the ``bcos`` library do. Statistics are fp32 at least, and results are rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcos_kernels.mode import is_explaining
from bcos_kernels.ops.norms.op import Norm, affine_map, normalise, track


class GroupNorm(nn.Module):
    """Normalise ``[N, C, *]`` over each group of channels and all positions, without a bias."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-6,
        centred: bool = False,
        affine: bool = True,
        *,
        about_mean: bool = False,
    ):
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups, self.num_channels, self.eps, self.centred = num_groups, num_channels, eps, centred
        self.about_mean = centred or about_mean
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"expected [N, {self.num_channels}, *], got {list(x.shape)}")
        norm = Norm("group", self.num_groups, self.eps, self.centred, self.about_mean)
        return normalise(x, self.weight, norm, extras=False)[0]

    def extra_repr(self) -> str:
        """Constructor arguments, as nn.GroupNorm prints them."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, centred={self.centred}"


class LayerNorm(nn.Module):
    """Normalise the last dimension of ``[..., D]``, without a bias; centred by default."""

    def __init__(
        self,
        features: int,
        eps: float = 1e-6,
        centred: bool = True,
        affine: bool = True,
        *,
        about_mean: bool = False,
    ):
        super().__init__()
        self.features, self.eps, self.centred, self.about_mean = features, eps, centred, centred or about_mean
        self.weight = nn.Parameter(torch.ones(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 1 or x.shape[-1] != self.features:
            raise ValueError(f"expected [..., {self.features}], got {list(x.shape)}")
        return normalise(x, self.weight, Norm("last", 1, self.eps, self.centred, self.about_mean), extras=False)[0]

    def extra_repr(self) -> str:
        """Constructor arguments, as nn.LayerNorm prints them."""
        return f"{self.features}, eps={self.eps}, centred={self.centred}"


class RMSNorm(LayerNorm):
    """Divide the last dimension of ``[..., D]`` by its root mean square: an uncentred :class:`LayerNorm`."""

    def __init__(self, features: int, eps: float = 1e-6, affine: bool = True):
        super().__init__(features, eps, centred=False, affine=affine)


class PositionNorm2d(nn.Module):
    """Normalise ``[N, C, H, W]`` over the channels of each pixel, without a bias.

    Arguments and state_dict of the ``bcos`` library's ``DetachablePositionNorm2d`` and, with ``centred=False``,
    ``PositionNormUncentered2d``, both without their bias.
    """

    def __init__(
        self,
        features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        centred: bool = True,
        about_mean: bool = True,
    ):
        super().__init__()
        self.features, self.eps, self.centred, self.about_mean = features, eps, centred, centred or about_mean
        self.weight = nn.Parameter(torch.ones(features, device=device, dtype=dtype)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.features:
            raise ValueError(f"expected [N, {self.features}, H, W], got {list(x.shape)}")
        return normalise(x, self.weight, Norm("position", 1, self.eps, self.centred, self.about_mean), extras=False)[0]

    def extra_repr(self) -> str:
        """Constructor arguments."""
        return f"{self.features}, eps={self.eps}, centred={self.centred}"


class BatchNorm2d(nn.BatchNorm2d):
    """Normalise ``[N, C, H, W]`` over the samples and pixels of each channel, without a bias of its own.

    Arguments, running statistics and state_dict of torch's batch norm without a bias and, with ``centred=False``, of
    the ``bcos`` library's ``BatchNormUncentered2d`` without one: its ``running_var`` then averages the biased variance
    and ``running_mean`` stays as it is, unused. With ``about_mean=False`` ``running_var`` averages mean squares.

    In evaluation the statistics are constants, and the running mean of a centred norm a true bias: ``completeness``
    reports it under its own name. Explaining a norm in training mode that tracks statistics is a ValueError, because
    it would change them.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        centred: bool = True,
        about_mean: bool = True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.register_parameter("bias", None)
        self.centred, self.about_mean = centred, centred or about_mean

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4 or input.shape[1] != self.num_features:
            raise ValueError(f"expected [N, {self.num_features}, H, W], got {list(input.shape)}")
        power = self.running_var
        if not self.training and power is not None:
            return affine_map(input, self.weight, self.subtracted_constant(), power, self.eps)
        if self.training and self.track_running_stats and is_explaining():
            raise ValueError("explaining a batch norm in training mode would change its running statistics; call"
                             " model.eval() first")  # fmt: skip
        count = input.numel() // self.num_features
        if self.training and count < 2:
            raise ValueError(f"a batch norm in training needs more than 1 value per channel, got {list(input.shape)}")
        norm, tracks = Norm("batch", 1, self.eps, self.centred, self.about_mean), self.training and power is not None
        out, mean, rstd = normalise(input, self.weight, norm, extras=tracks)
        if tracks:
            assert power is not None and mean is not None and rstd is not None
            self._track(power, mean, rstd, count)
        return out

    def subtracted_constant(self) -> Tensor | None:
        """The running mean where the norm subtracts it, which makes it a true bias: centred, in evaluation."""
        return self.running_mean if self.centred and not self.training else None

    def _track(self, running_power: Tensor, mean: Tensor, rstd: Tensor, count: int) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        # torch's batch norm averages the unbiased variance, the library's uncentred one the biased
        gain = count / (count - 1) if self.centred else 1.0
        track(self.running_mean if self.centred else None, running_power, mean, rstd, self.eps, share, gain)

    def extra_repr(self) -> str:
        """Constructor arguments, as nn.BatchNorm2d prints them."""
        return f"{super().extra_repr()}, centred={self.centred}"
