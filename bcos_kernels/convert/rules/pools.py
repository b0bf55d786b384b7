"""Max-pools: the choice of the first part of a stacked batch held for all, or an average in their place.

Alone a max-pool is linear already where it stands: its derivative is its choice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_kernels.mode import primal, slices

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MAX_POOLS: dict[type[nn.Module], int] = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}
"""The pools that can be converted, and over how many dimensions they go."""


class _Pool:
    dims: int
    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    ceil_mode: bool


class HeldMaxPool(_Pool):
    """``nn.MaxPool`` whose choice, in a stacked batch, is that of the first part."""

    def forward(self, input: Tensor) -> Tensor:
        if slices() == 1:
            return super().forward(input)  # type: ignore[misc,no-any-return]
        pool = _MAX[self.dims]
        size = self.kernel_size, self.stride, self.padding, self.dilation
        out, choice = pool(primal(input), *size, ceil_mode=self.ceil_mode, return_indices=True)
        rows = choice.flatten(-self.dims).repeat(slices(), *[1] * (choice.ndim - self.dims))
        return torch.gather(input.flatten(-self.dims), -1, rows).view(-1, *out.shape[1:])


class AveragePool(_Pool):
    """The average over the window of an ``nn.MaxPool``, padding left out."""

    def forward(self, input: Tensor) -> Tensor:
        size = self.kernel_size, self.stride, self.padding, self.ceil_mode
        return _AVERAGE[self.dims](input, *size, count_include_pad=False)  # type: ignore[no-any-return]
