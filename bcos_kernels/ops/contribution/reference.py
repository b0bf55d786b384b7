"""Summed contributions in pure torch: the truth that the kernels are compared with, and differentiable."""

from __future__ import annotations

from torch import Tensor

from bcos_kernels.ops.epilogue.reference import widen


def contribution(x: Tensor, g: Tensor, sum_over: tuple[int, ...]) -> Tensor:
    """``(x * g).sum(sum_over)`` in the accumulation type, contiguous; all of ``x * g`` where sum_over is empty."""
    product = widen(x) * widen(g)
    return product.sum(sum_over) if sum_over else product.contiguous()
