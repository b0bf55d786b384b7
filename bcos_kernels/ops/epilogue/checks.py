"""What the compiled epilogues require of their tensors, with ValueError.

Norms and coefficients are in the accumulation type: float64 for float64, float32 for everything else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels.ops.epilogue.layout import accumulator, patch_counts
from bcos_kernels.ops.epilogue.reference import Padding, Pair


def check_windows(x: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> Pair:
    """Number of patches in each direction of an image x; raises ValueError where there are none to speak of."""
    check_dims("x", x, 4)
    check_groups(x, groups)
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError(
            "kernel, stride and dilation must be at least 1 and padding at least 0, got "
            f"{kernel}, {stride}, {dilation} and {padding}"
        )
    counts = patch_counts(x, kernel, stride, padding, dilation)
    if counts[0] < 1 or counts[1] < 1:
        raise ValueError(f"a {kernel} patch with dilation {dilation} does not fit x {tuple(x.shape)} padded {padding}")
    return counts


def check_scale(y: Tensor, n: Tensor, lengths: Tensor | None, b: float) -> None:
    """Check the norms and lengths that belong to responses y ``[N, O, P, Q]`` or ``[R, O]``."""
    if not b >= 1:
        raise ValueError(f"b must be at least 1, got {b}")
    if y.dim() == 2:
        check_factor("n", n, (y.shape[0],), y)
    else:
        check_dims("y", y, 4)
        groups = n.shape[1] if n.dim() == 4 else 0
        check_groups(y, groups)
        check_factor("n", n, (y.shape[0], groups, *y.shape[2:]), y)
    if lengths is not None:
        check_factor("lengths", lengths, (y.shape[1],), y)


def check_parts(v: Tensor, y: Tensor) -> None:
    """Raise ValueError unless v is parts, each like y, stacked along dimension 0."""
    if v.dim() != y.dim() or v.shape[1:] != y.shape[1:] or v.dtype != y.dtype or v.shape[0] % max(1, y.shape[0]):
        raise ValueError(
            f"v must be parts like y, {tuple(y.shape)} {y.dtype}, along dimension 0, got {tuple(v.shape)} {v.dtype}"
        )


def check_factor(name: str, factor: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise ValueError unless a factor has this shape, in the accumulation type of ``like``."""
    if factor.shape != shape or factor.dtype != accumulator(like):
        raise ValueError(f"{name} must be {shape} {accumulator(like)}, got {tuple(factor.shape)} {factor.dtype}")


def check_dims(name: str, x: Tensor, dims: int) -> None:
    """Raise ValueError unless x has this many dimensions."""
    if x.dim() != dims:
        raise ValueError(f"{name} must have {dims} dimensions, got {tuple(x.shape)}")


def check_groups(x: Tensor, groups: int) -> None:
    """Raise ValueError unless the groups share the channels evenly."""
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups must divide the {x.shape[1]} channels, got {groups}")


def check_like(name: str, x: Tensor, other: Tensor) -> None:
    """Raise ValueError unless x has the shape and type of the other."""
    if x.shape != other.shape or x.dtype != other.dtype:
        raise ValueError(f"{name} must be {tuple(other.shape)} {other.dtype}, got {tuple(x.shape)} {x.dtype}")


def check_rows(grad: Tensor, weight: Tensor, lengths: Tensor) -> None:
    """Raise ValueError unless both hold the elements of each row together and in one order."""
    check_like("grad", grad, weight)
    check_factor("lengths", lengths, (weight.shape[0],), weight)
    dense = any(weight.is_contiguous(memory_format=f) for f in (torch.contiguous_format, torch.channels_last))
    if grad.stride() != weight.stride() or not dense:
        raise ValueError(f"rows must be dense and in one order, got strides {grad.stride()} and {weight.stride()}")


def check_target(dx: Tensor, x: Tensor) -> None:
    """Raise ValueError unless dx can take, in place, a sum of what belongs to x."""
    check_like("dx", dx, x)
    if any(stride == 0 and size > 1 for stride, size in zip(dx.stride(), dx.shape, strict=True)):
        raise ValueError("dx is expanded: its elements share memory and cannot be added to in place")
