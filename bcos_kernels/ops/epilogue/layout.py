"""How the compiled epilogues see a tensor: as an image, of which a matrix is one line whose pixels are the rows."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels.ops.epilogue.reference import Padding, Pair

CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
"""The types that compiled kernels take, and what they call them (csrc/arguments.hpp)."""


def accumulator(x: Tensor) -> torch.dtype:
    """The type of sums over elements of x, and of what is kept per pixel."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


Four = tuple[int, int, int, int]


def image_shape(y: Tensor) -> Four:
    """The sizes of an image."""
    if y.ndim == 4:
        return y.shape  # type: ignore[return-value]
    rows, columns = y.shape
    return 1, columns, 1, rows


def image_strides(y: Tensor) -> Four:
    """The strides that go with :func:`image_shape`."""
    if y.ndim == 4:
        return y.stride()  # type: ignore[return-value]
    row, column = y.stride()
    return 0, column, 0, row


def group_count(n: Tensor) -> int:
    """How many groups of units have norms of their own: n ``[N, g, P, Q]``, or ``[R]`` with one."""
    return n.shape[1] if n.ndim == 4 else 1


def patch_counts(x: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair) -> Pair:
    """Number of patches in each direction of an image x; less than 1 where none fits."""
    height = x.shape[2] + padding[0] + padding[1] - dilation[0] * (kernel[0] - 1)
    width = x.shape[3] + padding[2] + padding[3] - dilation[1] * (kernel[1] - 1)
    return (height - 1) // stride[0] + 1, (width - 1) // stride[1] + 1


def address(tensor: Tensor | None) -> int:
    """Where a tensor that may be missing lies; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()
