"""Summed contributions by the C++ kernels, in whatever order the elements lie."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels import native
from bcos_kernels.ops.contribution.plan import plan
from bcos_kernels.ops.epilogue.layout import CODES, accumulator


def contribution(x: Tensor, g: Tensor, sum_over: tuple[int, ...]) -> Tensor:
    """As :func:`bcos_kernels.ops.contribution.reference.contribution`. One output belongs to one task."""
    sums = x.new_zeros([x.shape[d] for d in range(x.ndim) if d not in sum_over], dtype=accumulator(x))
    if x.numel():
        x, g, walk = plan(x, g, sum_over)
        native.load().contribution(  # type: ignore[union-attr]
            CODES[x.dtype], x.data_ptr(), g.data_ptr(), sums.data_ptr(), *walk, walk.along_sums,
            torch.get_num_threads(),
        )  # fmt: skip
    return sums
