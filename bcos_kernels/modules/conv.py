"""Drop-in B-cos convolutions: constructor and state_dict of the ``bcos`` library."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bcos_kernels import functional
from bcos_kernels.modules.linear import check_options
from bcos_kernels.ops.weights import prepare


class NormedConv1d(nn.Conv1d):
    """A convolution over sequences whose filters have unit norm."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, prepare(self.weight, "A")[0], self.bias)


class NormedConv2d(nn.Conv2d):
    """A convolution over images whose filters have unit norm."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, prepare(self.weight, "A")[0], self.bias)


class _BcosConv(nn.Module):
    """Constructor and options of a B-cos convolution around ``normed``, the layer that holds its weight."""

    normed: type[NormedConv1d] | type[NormedConv2d]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...] = 1,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        b: float = 2,
        max_out: int = 1,
        convention: str = "A",
        **kwargs: Any,
    ):
        super().__init__()
        check_options(b, max_out, convention)
        if kwargs.get("bias"):
            raise ValueError("a B-cos layer has no bias: with one, its output would not be explained by its input")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.groups, self.padding_mode = groups, padding_mode
        self.b, self.max_out, self.convention = b, max_out, convention
        options: dict[str, Any] = {"device": device, "dtype": dtype, "padding_mode": padding_mode, "bias": False}
        shape: tuple[Any, ...] = (kernel_size, stride, padding, dilation, groups)
        self.linear = self.normed(in_channels, out_channels * max_out, *shape, **options)

    def extra_repr(self) -> str:
        return f"B={self.b}, max_out={self.max_out}, convention={self.convention},"


class BcosConv1d(_BcosConv):
    """B-cos transform of ``[N, in_channels, L]``; see ``functional.bcos_conv1d``; the rest as :class:`BcosConv2d`."""

    normed = NormedConv1d

    def forward(self, in_tensor: Tensor) -> Tensor:
        return functional.bcos_conv1d(
            in_tensor, self.linear.weight, self.b, self.max_out, self.stride, self.padding, self.dilation,
            self.groups, self.padding_mode, self.convention,
        )  # fmt: skip


class BcosConv2d(_BcosConv):
    """B-cos transform of ``[N, in_channels, H, W]``; see ``functional.bcos_conv2d``.

    The weight is ``linear.weight``. Further keyword arguments are ignored, as in the ``bcos`` library,
    but for ``bias=True``, which raises ValueError.
    """

    normed = NormedConv2d

    def forward(self, in_tensor: Tensor) -> Tensor:
        return functional.bcos_conv2d(
            in_tensor, self.linear.weight, self.b, self.max_out, self.stride, self.padding, self.dilation,
            self.groups, self.padding_mode, self.convention,
        )  # fmt: skip
