"""The B-cos epilogue by the C++ kernels: same functions and signatures as ``reference.py``.

The kernels take addresses, sizes and strides, so every layout is read in place. What they require is checked
here, with ValueError, because past this point a mistake is a crash. Norms and coefficients are contiguous in
the accumulation type: float64 for float64, float32 for everything else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels import native

_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}  # csrc/cpu/kernels.hpp

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def supports(*tensors: Tensor) -> str | None:
    """Return None where the kernels take these tensors, else the reason why not."""
    if native.load() is None:
        return native.why_missing()
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"the C++ kernels run on the CPU, not on {tensor.device.type}"
        if tensor.dtype not in _CODES:
            return f"the C++ kernels take float32, float64, bfloat16 and float16, not {tensor.dtype}"
        if tensor.layout is not torch.strided or tensor.is_neg():
            return "the C++ kernels take plain strided tensors"
    return None


def row_norm(x: Tensor, eps: float) -> Tensor:
    """Return ``sqrt(sum of squares) + eps`` of each row: x ``[R, D]`` -> ``[R]`` in the accumulation type."""
    _check_dims("x", x, 2)
    norms = x.new_empty(x.shape[0], dtype=_accumulator(x))
    _kernels(x).row_norm(
        _CODES[x.dtype], x.data_ptr(), x.shape, x.stride(), norms.data_ptr(), eps, torch.get_num_threads()
    )
    return norms


def patch_norm(
    x: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int, eps: float
) -> Tensor:
    """Return the norm of each patch: x ``[N, C, H, W]`` -> ``[N, groups, P, Q]`` in the accumulation type.

    ``sqrt(sum of squares over the group's channels and the window + eps)``; pairs are (height, width), padding
    is zeros at (top, bottom, left, right).
    """
    _check_dims("x", x, 4)
    _check_groups(x, groups)
    out = _windows(x, kernel, stride, padding, dilation)
    norms = x.new_empty((x.shape[0], groups, *out), dtype=_accumulator(x))
    _kernels(x).patch_norm(
        _CODES[x.dtype], x.data_ptr(), x.shape, x.stride(), norms.data_ptr(),
        kernel, stride, padding, dilation, out, groups, eps, torch.get_num_threads(),
    )  # fmt: skip
    return norms


def scale(y: Tensor, n: Tensor, b: float, delta: float) -> Tensor:
    """Return ``y * (|y| / n + delta) ** (b - 1)`` like y; 0 where y is 0.

    y: ``[N, O, P, Q]`` with n ``[N, g, P, Q]``, or ``[R, O]`` with ``[R]``. b = 2 takes delta as 0.
    """
    n, groups = _per_pixel("n", n, y)
    out = torch.empty_like(y)
    _kernels(y, n).scale(
        _CODES[y.dtype], out.data_ptr(), _strides(out), y.data_ptr(), _strides(y), _shape(y), n.data_ptr(),
        groups, b, delta, torch.get_num_threads(),
    )  # fmt: skip
    return out


def scale_backward(grad: Tensor, y: Tensor, n: Tensor, b: float, delta: float) -> tuple[Tensor, Tensor]:
    """Return the gradient of y, like y, and the coefficients c, like n, of the gradient through the norm.

    ``grad_y = grad s (1 + (b-1) u/(u+delta))`` and ``c = -(b-1) sum over the group (grad s y u/(u+delta)) / n^2``,
    where ``u = |y|/n`` and ``s = (u+delta)^(b-1)``.
    """
    n, groups = _per_pixel("n", n, y)
    if grad.shape != y.shape or grad.dtype != y.dtype:
        raise ValueError(f"grad must be like y, {tuple(y.shape)} {y.dtype}, got {tuple(grad.shape)} {grad.dtype}")
    grad_y, c = torch.empty_like(y), torch.empty_like(n)
    _kernels(grad, y, n).scale_backward(
        _CODES[y.dtype], grad_y.data_ptr(), _strides(grad_y), grad.data_ptr(), _strides(grad), y.data_ptr(),
        _strides(y), _shape(y), n.data_ptr(), c.data_ptr(), groups, b, delta, torch.get_num_threads(),
    )  # fmt: skip
    return grad_y, c


def spread(
    dx: Tensor, x: Tensor, c: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """Add to dx, in place, ``x`` times the coefficients c ``[N, groups, P, Q]`` of all patches that hold the pixel."""
    _check_dims("x", x, 4)
    _check_groups(x, groups)
    _check_target(dx, x)
    out = _windows(x, kernel, stride, padding, dilation)
    c = _contiguous("c", c, (x.shape[0], groups, *out), x)
    _kernels(dx, x, c).spread(
        _CODES[x.dtype], dx.data_ptr(), dx.stride(), x.data_ptr(), x.stride(), x.shape, c.data_ptr(),
        kernel, stride, padding, dilation, out, groups, torch.get_num_threads(),
    )  # fmt: skip


def spread_rows(dx: Tensor, x: Tensor, c: Tensor) -> None:
    """Add ``x * c[:, None]`` to dx in place: dx, x ``[R, D]``, c ``[R]``."""
    _check_dims("x", x, 2)
    _check_target(dx, x)
    c = _contiguous("c", c, (x.shape[0],), x)
    _kernels(dx, x, c).spread_rows(
        _CODES[x.dtype], dx.data_ptr(), dx.stride(), x.data_ptr(), x.stride(), x.shape, c.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip


def _kernels(*tensors: Tensor):  # type: ignore[no-untyped-def]  # a module that mypy cannot see
    if reason := supports(*tensors):
        raise ValueError(reason)
    return native.load()


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _shape(y: Tensor) -> tuple[int, ...]:
    """The sizes of an image; a matrix is an image of one line whose pixels are the rows."""
    return tuple(y.shape) if y.dim() == 4 else (1, y.shape[1], 1, y.shape[0])


def _strides(y: Tensor) -> tuple[int, ...]:
    return y.stride() if y.dim() == 4 else (0, y.stride(1), 0, y.stride(0))


def _windows(x: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair) -> Pair:
    """Number of patches in each direction."""
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


def _per_pixel(name: str, n: Tensor, y: Tensor) -> tuple[Tensor, int]:
    """Check the norms that belong to y and return them contiguous, with the number of groups."""
    if y.dim() == 2:
        return _contiguous(name, n, (y.shape[0],), y), 1
    _check_dims("y", y, 4)
    groups = n.shape[1] if n.dim() == 4 else 0
    _check_groups(y, groups)
    return _contiguous(name, n, (y.shape[0], groups, *y.shape[2:]), y), groups


def _contiguous(name: str, factor: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    if factor.shape != shape or factor.dtype != _accumulator(like):
        raise ValueError(f"{name} must be {shape} {_accumulator(like)}, got {tuple(factor.shape)} {factor.dtype}")
    return factor.contiguous()


def _check_dims(name: str, x: Tensor, dims: int) -> None:
    if x.dim() != dims:
        raise ValueError(f"{name} must have {dims} dimensions, got {tuple(x.shape)}")


def _check_groups(x: Tensor, groups: int) -> None:
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups must divide the {x.shape[1]} channels, got {groups}")


def _check_target(dx: Tensor, x: Tensor) -> None:
    if dx.shape != x.shape or dx.dtype != x.dtype:
        raise ValueError(f"dx must be like x, {tuple(x.shape)} {x.dtype}, got {tuple(dx.shape)} {dx.dtype}")
    if any(stride == 0 and size > 1 for stride, size in zip(dx.stride(), dx.shape, strict=True)):
        raise ValueError("dx is expanded: its elements share memory and cannot be added to in place")
