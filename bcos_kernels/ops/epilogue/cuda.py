"""The B-cos epilogue by the CUDA C++ kernels: same functions and signatures as ``reference.py``.

As in ``cpu.py``, the kernels take addresses, sizes and strides, every layout is read in place, and the callers answer
for what is passed. Kernels are enqueued on the current stream of the tensors' device.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from bcos_kernels import native
from bcos_kernels.ops.epilogue.layout import (
    CODES,
    accumulator,
    address,
    group_count,
    image_shape,
    image_strides,
    patch_counts,
)
from bcos_kernels.ops.epilogue.reference import Padding, Pair

DEVICE = "cuda"
_kernels: Any = native.load("cuda")


def supports(*tensors: Tensor) -> str | None:
    """Return None where the kernels take these tensors, else the reason why not."""
    if _kernels is None:
        return native.why_missing("cuda")
    for tensor in tensors:
        if tensor.device.type != DEVICE:
            return f"the CUDA kernels run on CUDA devices, not on {tensor.device.type}"
        if tensor.dtype not in CODES:
            return f"the CUDA kernels take float32, float64, bfloat16 and float16, not {tensor.dtype}"
        if tensor.layout is not torch.strided or tensor.is_neg():
            return "the CUDA kernels take plain strided tensors"
        if refusal := _refusal_of(tensor.get_device()):
            return refusal
    return None


@functools.cache
def _refusal_of(device: int) -> str:
    """Why nothing built here runs on a device: one of another architecture, or an old driver."""
    why = _kernels.why_not_on(device)
    return f"the CUDA kernels do not run on device {device}: {why}" if why else ""


def row_norm(x: Tensor, eps: float) -> Tensor:
    """Return ``sqrt(sum of squares) + eps`` of each row: x ``[R, D]`` -> ``[R]`` in the accumulation type."""
    norms = x.new_empty(x.shape[0], dtype=accumulator(x))
    _kernels.row_norm(*_queue(x), CODES[x.dtype], x.data_ptr(), image_strides(x), image_shape(x), norms.data_ptr(), eps)
    return norms


def patch_norm(
    x: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int, eps: float
) -> Tensor:
    """Return the norm of each patch: x ``[N, C, H, W]`` -> ``[N, groups, P, Q]`` in the accumulation type.

    ``sqrt(sum of squares over the group's channels and the window + eps)``; pairs are (height, width), padding
    is zeros at (top, bottom, left, right).
    """
    out = patch_counts(x, kernel, stride, padding, dilation)
    norms = x.new_empty((x.shape[0], groups, *out), dtype=accumulator(x))
    pixels = kernel == (1, 1) and not any(padding)
    sums = None if pixels else _per_pixel_of(x, groups)
    _kernels.patch_norm(
        *_queue(x), CODES[x.dtype], x.data_ptr(), x.stride(), x.shape, address(sums), norms.data_ptr(),
        kernel, stride, padding, dilation, out, groups, eps,
    )  # fmt: skip
    return norms


def scale(w_x: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> Tensor:
    """Return ``y * (|y| / n + delta) ** (b - 1)`` of ``y = w_x / lengths``, in the memory of w_x.

    w_x: ``[N, O, P, Q]`` with n ``[N, g, P, Q]``, or ``[R, O]`` with ``[R]``; lengths: ``[O]`` or None; b = 2 takes
    delta as 0.
    """
    _kernels.scale(
        *_queue(w_x), CODES[w_x.dtype], w_x.data_ptr(), image_strides(w_x), image_shape(w_x), n.data_ptr(),
        address(lengths), group_count(n), b, delta,
    )  # fmt: skip
    return w_x


def apply_factor(
    v: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float, out: Tensor | None = None
) -> Tensor:
    """Return ``v / lengths`` times the factor of ``kept``, whose rows all parts of v ``[S * N, ...]`` share.

    In ``out``, if given, which may be v; else like v.
    """
    out, size = torch.empty_like(v) if out is None else out, kept.shape[0]
    _kernels.apply_factor(
        *_queue(v), CODES[v.dtype], v.shape[0] // max(1, size), out.data_ptr(), image_strides(out),
        size * out.stride(0), v.data_ptr(), image_strides(v), size * v.stride(0), kept.data_ptr(),
        image_strides(kept), image_shape(kept), n.data_ptr(), address(lengths), group_count(n), b, delta,
    )  # fmt: skip
    return out


def scale_backward(
    grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float
) -> tuple[Tensor, Tensor]:
    """Return the gradient of ``w·x``, like kept, and the coefficients c, like n, of the gradient through the norm.

    As :func:`bcos_kernels.ops.epilogue.cpu.scale_backward`.
    """
    grad_y, c = torch.empty_like(kept), torch.empty_like(n)
    _kernels.scale_backward(
        *_queue(kept), CODES[kept.dtype], grad_y.data_ptr(), image_strides(grad_y), grad.data_ptr(),
        image_strides(grad), kept.data_ptr(), image_strides(kept), image_shape(kept), n.data_ptr(), address(lengths),
        c.data_ptr(), group_count(n), b, delta,
    )  # fmt: skip
    return grad_y, c


def project_rows(grad: Tensor, weight: Tensor, lengths: Tensor) -> None:
    """Take from each row of grad, in place, what points along the weight; both ``[O, ...]`` in one memory format."""
    rows = grad.shape[0]
    _kernels.project_rows(
        *_queue(grad), CODES[grad.dtype], grad.data_ptr(), weight.data_ptr(), (rows, grad.numel() // max(1, rows)),
        lengths.data_ptr(),
    )  # fmt: skip


def spread(
    dx: Tensor, x: Tensor, c: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """Add to dx, in place, ``x`` times the coefficients c ``[N, groups, P, Q]`` of all patches that hold the pixel."""
    pixels = kernel == (1, 1) and stride == (1, 1) and not any(padding)
    _spread(dx, x, c, None if pixels else _per_pixel_of(x, groups), kernel, stride, padding, dilation, groups)


def spread_rows(dx: Tensor, x: Tensor, c: Tensor) -> None:
    """Add ``x * c[:, None]`` to dx in place: dx, x ``[R, D]``, c ``[R]``."""
    _spread(dx, x, c, None, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1)


def _spread(
    dx: Tensor, x: Tensor, c: Tensor, factors: Tensor | None, kernel: Pair, stride: Pair, padding: Padding,
    dilation: Pair, groups: int,
) -> None:  # fmt: skip
    out = (c.shape[2], c.shape[3]) if c.ndim == 4 else (1, c.shape[0])
    _kernels.spread(
        *_queue(x), CODES[x.dtype], dx.data_ptr(), image_strides(dx), x.data_ptr(), image_strides(x), image_shape(x),
        c.data_ptr(), address(factors), kernel, stride, padding, dilation, out, groups,
    )  # fmt: skip


def _queue(x: Tensor) -> tuple[int, int]:
    """The device of x, and the handle of its current stream."""
    device = x.get_device()
    return device, torch._C._cuda_getCurrentRawStream(device)


def _per_pixel_of(x: Tensor, groups: int) -> Tensor:
    """Room for a number per pixel and group of x ``[N, C, H, W]``."""
    return x.new_empty((x.shape[0], groups, *x.shape[2:]), dtype=accumulator(x))
