"""What the compiled epilogues require of their tensors: checks with ValueError, and the shapes that follow.

Norms and coefficients are contiguous in the accumulation type: float64 for float64, float32 for everything else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels.ops.epilogue.reference import Padding, Pair


def accumulator(x: Tensor) -> torch.dtype:
    """The type of sums over elements of x, and of what is kept per pixel."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def image_shape(y: Tensor) -> tuple[int, int, int, int]:
    """The sizes of an image; a matrix is an image of one line whose pixels are the rows."""
    return (y.shape[0], y.shape[1], y.shape[2], y.shape[3]) if y.dim() == 4 else (1, y.shape[1], 1, y.shape[0])


def image_strides(y: Tensor) -> tuple[int, int, int, int]:
    """The strides that go with :func:`image_shape`."""
    n, c, *pixel = y.stride() if y.dim() == 4 else (0, y.stride(1), 0, y.stride(0))
    return n, c, pixel[0], pixel[1]


def windows(x: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> Pair:
    """Number of patches in each direction of an image x; raises ValueError where there are none to speak of."""
    check_dims("x", x, 4)
    check_groups(x, groups)
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError(
            "kernel, stride and dilation must be at least 1 and padding at least 0, got "
            f"{kernel}, {stride}, {dilation} and {padding}"
        )
    height = x.shape[2] + padding[0] + padding[1] - dilation[0] * (kernel[0] - 1)
    width = x.shape[3] + padding[2] + padding[3] - dilation[1] * (kernel[1] - 1)
    if height < 1 or width < 1:
        raise ValueError(f"a {kernel} patch with dilation {dilation} does not fit x {tuple(x.shape)} padded {padding}")
    return (height - 1) // stride[0] + 1, (width - 1) // stride[1] + 1


def per_pixel(name: str, n: Tensor, y: Tensor) -> tuple[Tensor, int]:
    """Check the norms that belong to y and return them contiguous, with the number of groups."""
    if y.dim() == 2:
        return contiguous(name, n, (y.shape[0],), y), 1
    check_dims("y", y, 4)
    groups = n.shape[1] if n.dim() == 4 else 0
    check_groups(y, groups)
    return contiguous(name, n, (y.shape[0], groups, *y.shape[2:]), y), groups


def parts_of(v: Tensor, y: Tensor) -> int:
    """How many parts, each like y, are stacked in v. Raises ValueError."""
    if v.dim() != y.dim() or v.shape[1:] != y.shape[1:] or v.dtype != y.dtype or v.shape[0] % max(1, y.shape[0]):
        raise ValueError(
            f"v must be parts like y, {tuple(y.shape)} {y.dtype}, along dimension 0, got {tuple(v.shape)} {v.dtype}"
        )
    return v.shape[0] // max(1, y.shape[0])


def contiguous(name: str, factor: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Check the shape and type of a per-pixel factor and return it contiguous."""
    if factor.shape != shape or factor.dtype != accumulator(like):
        raise ValueError(f"{name} must be {shape} {accumulator(like)}, got {tuple(factor.shape)} {factor.dtype}")
    return factor.contiguous()


def per_unit(lengths: Tensor | None, y: Tensor) -> Tensor | None:
    """Check the lengths that belong to the units of y, if any, and return them contiguous."""
    return None if lengths is None else contiguous("lengths", lengths, (y.shape[1],), y)


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
    contiguous("lengths", lengths, (len(weight),), weight)
    dense = any(weight.is_contiguous(memory_format=f) for f in (torch.contiguous_format, torch.channels_last))
    if grad.stride() != weight.stride() or not dense:
        raise ValueError(f"rows must be dense and in one order, got strides {grad.stride()} and {weight.stride()}")


def check_target(dx: Tensor, x: Tensor) -> None:
    """Raise ValueError unless dx can take, in place, a sum of what belongs to x."""
    check_like("dx", dx, x)
    if any(stride == 0 and size > 1 for stride, size in zip(dx.stride(), dx.shape, strict=True)):
        raise ValueError("dx is expanded: its elements share memory and cannot be added to in place")
