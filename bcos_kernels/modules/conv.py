"""Drop-in B-cos convolution: constructor and state_dict of the ``bcos`` library."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bcos_kernels import functional
from bcos_kernels.modules.linear import check_options
from bcos_kernels.ops.weights import prepare


class NormedConv2d(nn.Conv2d):
    """A convolution whose filters have unit norm."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, prepare(self.weight, "A")[0], self.bias)


class BcosConv2d(nn.Module):
    """B-cos transform of ``[N, in_channels, H, W]``; see ``functional.bcos_conv2d``.

    The weight is ``linear.weight``. Further keyword arguments are ignored, as in the ``bcos`` library,
    but for ``bias=True``, which raises ValueError.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
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
        self.linear = NormedConv2d(
            in_channels, out_channels * max_out, kernel_size, stride, padding, dilation, groups,
            bias=False, padding_mode=padding_mode, device=device, dtype=dtype,
        )  # fmt: skip

    def forward(self, in_tensor: Tensor) -> Tensor:
        return functional.bcos_conv2d(
            in_tensor, self.linear.weight, self.b, self.max_out, self.stride, self.padding, self.dilation,
            self.groups, self.padding_mode, self.convention,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"B={self.b}, max_out={self.max_out}, convention={self.convention},"
