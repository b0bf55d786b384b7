"""Layers that become B-cos layers and keep their weight, their bias if they may, and everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bcos_kernels.constants import constant
from bcos_kernels.convert.swap import Reshaped
from bcos_kernels.mode import hold
from bcos_kernels.modules.conv import BcosConv1d, BcosConv2d
from bcos_kernels.modules.linear import BcosLinear


class _WithBias:
    """A B-cos layer whose weight is its own, and which adds a bias where it has kept one."""

    max_out = 1
    weight: Tensor
    bias: Tensor | None
    b: float
    convention: str
    after_channels: int

    linear: Any = property(lambda layer: layer)
    """Where a B-cos layer has its weight: a converted one has it where torch has."""

    def forward(self, in_tensor: Tensor) -> Tensor:
        out: Tensor = super().forward(in_tensor)  # type: ignore[misc]
        if self.bias is None:
            return out
        return out + self.bias.to(out.dtype).view(-1, *[1] * self.after_channels)

    def extra_repr(self) -> str:
        """What torch prints, and the B-cos options."""
        # The B-cos layer's own extra_repr stands between this class and torch's.
        torchs: str = self.original.extra_repr(self)  # type: ignore[attr-defined]
        return f"{torchs}, B={self.b}, convention={self.convention}"


class Linear(_WithBias, BcosLinear):
    """``nn.Linear`` as a B-cos layer."""

    after_channels = 0


class Conv1d(_WithBias, BcosConv1d):
    """``nn.Conv1d`` as a B-cos layer."""

    after_channels = 1


class Conv2d(_WithBias, BcosConv2d):
    """``nn.Conv2d`` as a B-cos layer."""

    after_channels = 2


class Stem(Reshaped, Conv2d):
    """A first convolution that reads six channels ``[r, g, b, 1-r, 1-g, 1-b]``, and normalises them itself.

    With the mean μ and the deviation σ of the three-channel model, ``(x - μ) / σ = z`` and
    ``((1 - x) - (1 - μ)) / σ = -z``, so that weights ``[w/2, -w/2]`` give ``w z``, at zero-padded borders too. The
    subtracted means are a constant, named in the budget; without it (``biases="remove"``) the response is
    ``w (x - 1/2) / σ``: six channels take 1/2 for the mean.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    subtracts: bool

    def forward(self, in_tensor: Tensor) -> Tensor:
        scale = in_tensor.new_tensor(self.deviation * 2).reciprocal().view(6, 1, 1)
        scaled = in_tensor * scale
        if self.subtracts:
            means = in_tensor.new_tensor((*self.mean, *(1 - m for m in self.mean))).view(6, 1, 1)
            scaled = scaled + constant(self, -means * scale)  # type: ignore[arg-type]
        return super().forward(scaled)

    def restore(self, before: dict[str, Any]) -> None:
        """Make the remembered three-channel weight what the six-channel one is now, ``w₊ - w₋``."""
        with torch.no_grad():
            plus, minus = self.weight.chunk(2, 1)
            before["weight"].data = plus - minus


class Plain:
    """A layer that stays as it is, but for attributes that conversion sets."""


class Constant:
    """A module whose output no input of the explanation gave; the budget names what it adds.

    The first ``multiplies`` channels (dimension 1) of the output are factors rather than added: they are held.
    """

    multiplies: int

    def forward(self, *args: Tensor, **options: Tensor) -> Tensor:
        out: Tensor = super().forward(*args, **options)  # type: ignore[misc]
        if not self.multiplies:
            return constant(self, out)  # type: ignore[arg-type]
        factor, added = out.tensor_split([self.multiplies], 1)
        return torch.cat([hold(factor), constant(self, added)], 1)  # type: ignore[arg-type]
