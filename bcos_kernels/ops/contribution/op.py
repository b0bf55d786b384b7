"""The contributions of inputs, summed as they are formed: the product ``x * g`` is never in memory."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from bcos_kernels import dispatch
from bcos_kernels.ops.contribution import cpu, reference, triton

BACKENDS: dict[str, ModuleType] = {"cpu": cpu, "triton": triton, "reference": reference}


def contribution(x: Tensor, g: Tensor, sum_over: Sequence[int]) -> Tensor:
    """``x * g`` summed over the dimensions ``sum_over``: what parts of x gave to an output with ``g = W^T G``.

    x and g: one shape, one floating dtype, any strides, so that an expanded g costs no memory; sum_over: dimensions of
    x, negative ones from the end. ``[N, C, H, W]`` summed over 1 is the map of contributions ``[N, H, W]``, over 2
    and 3 that of each channel, over 1, 2 and 3 that of each sample; ``[N, L, D]`` over -1 that of each token. Returns
    the other dimensions, contiguous, in float64 for float64 and float32 otherwise, summed in that type. Where a
    gradient of x or g is asked for, plain torch runs. Raises ValueError. Source: mathematics §3 and §5, eq. 8.
    """
    if x.shape != g.shape or x.dtype != g.dtype or x.device != g.device:
        raise ValueError(
            f"x and g must have one shape, dtype and device, got {list(x.shape)} {x.dtype} on {x.device} and "
            f"{list(g.shape)} {g.dtype} on {g.device}"
        )
    if not x.is_floating_point():
        raise ValueError(f"x and g must be real floating tensors, got {x.dtype}")
    dims = summed_dims(x, sum_over)
    if torch.compiler.is_compiling():
        return torch.ops.bcos_kernels.contribution(x, g, dims)  # type: ignore[no-any-return]
    if torch.is_grad_enabled() and (x.requires_grad or g.requires_grad):
        return reference.contribution(x, g, dims)
    return BACKENDS[dispatch.choose(x, g, among=BACKENDS)].contribution(x, g, dims)  # type: ignore[no-any-return]


def summed_dims(x: Tensor, sum_over: Sequence[int]) -> tuple[int, ...]:
    """The dimensions of x to sum over, ascending and not negative. Raises ValueError."""
    dims = sorted(d + x.ndim if d < 0 else d for d in sum_over)
    if len(set(dims)) < len(dims) or not all(0 <= d < x.ndim for d in dims):
        raise ValueError(f"sum_over must name different dimensions of x {list(x.shape)}, got {list(sum_over)}")
    return tuple(dims)
