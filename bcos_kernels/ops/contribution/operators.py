"""``torch.ops.bcos_kernels.contribution``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bcos_kernels.ops.contribution import reference
from bcos_kernels.ops.contribution.op import contribution, summed_dims
from bcos_kernels.ops.epilogue.layout import accumulator
from bcos_kernels.ops.library import differentiate, register


def _shapes(x: Tensor, g: Tensor, sum_over: Sequence[int]) -> Tensor:
    dims = summed_dims(x, sum_over)
    return x.new_empty([size for d, size in enumerate(x.shape) if d not in dims], dtype=accumulator(x))


def _truth(x: Tensor, g: Tensor, sum_over: Sequence[int]) -> Tensor:
    return reference.contribution(x, g, summed_dims(x, sum_over))


_contribution = register("contribution(Tensor x, Tensor g, int[] sum_over) -> Tensor", contribution, _shapes)
differentiate(_contribution, _truth)
