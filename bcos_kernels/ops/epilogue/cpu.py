"""The B-cos epilogue by the C++ kernels: same functions and signatures as ``reference.py``.

The kernels take addresses, sizes and strides, so every layout is read in place. Nothing is checked here, where every
microsecond counts, and past this point a mistake is a crash. The callers are ``ops/bcos.py``, whose tensors fit by
construction, and ``operators.py``, which checks. Norms, lengths and coefficients are contiguous in the accumulation
type: float64 for float64, float32 for everything else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

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

_kernels: Any = native.load()
_threads = torch.get_num_threads
_has_storage = torch._C._has_storage


def supports(*tensors: Tensor) -> str | None:
    """Return None where the kernels take these tensors, else the reason why not."""
    if native.load() is None:
        return native.why_missing()
    for tensor in tensors:
        if not tensor.is_cpu:
            return f"the C++ kernels run on the CPU, not on {tensor.device.type}"
        if tensor.dtype not in CODES:
            return f"the C++ kernels take float32, float64, bfloat16 and float16, not {tensor.dtype}"
        if tensor.layout is not torch.strided or tensor.is_neg():
            return "the C++ kernels take plain strided tensors"
    return None


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors, which are no more than their memory; quicker than to ask why not."""
    for tensor in tensors:
        plain = type(tensor) is Tensor or type(tensor) is Parameter
        if not (plain and tensor.is_cpu and tensor.dtype in CODES and _has_storage(tensor)) or tensor.is_neg():
            return False
    return native.load() is not None


def finish_rows(
    x: Tensor, weight: Tensor, w_x: Tensor, unit: bool, eps: float, b: float, delta: float
) -> tuple[Tensor, Tensor | None]:
    """The norms of rows of x and the lengths of those of the weight; w_x becomes the output.

    By one call, because a call costs microseconds: :func:`row_norm` of both and :func:`scale`. ``unit``: y is w_x over
    the lengths. The weight must be dense.
    """
    sums = accumulator(x)
    n, lengths = x.new_empty(x.shape[0], dtype=sums), weight.new_empty(weight.shape[0], dtype=sums) if unit else None
    _kernels.finish_rows(
        CODES[x.dtype], x.data_ptr(), x.shape, x.stride(), weight.data_ptr(), weight.shape[0], weight.numel(),
        w_x.data_ptr(), w_x.stride(), n.data_ptr(), address(lengths), eps, b, delta, _threads(),
    )  # fmt: skip
    return n, lengths


def finish_patches(
    x: Tensor, weight: Tensor, w_x: Tensor, unit: bool, eps: float, b: float, delta: float,
    kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The same for a convolution, as :func:`patch_norm`, :func:`row_norm` of the weight and :func:`scale`."""
    sums, shape = accumulator(x), w_x.shape
    n = x.new_empty((shape[0], groups, shape[2], shape[3]), dtype=sums)
    lengths = weight.new_empty(weight.shape[0], dtype=sums) if unit else None
    _kernels.finish_patches(
        CODES[x.dtype], x.data_ptr(), x.shape, x.stride(), weight.data_ptr(), weight.shape[0], weight.numel(),
        w_x.data_ptr(), shape, w_x.stride(), n.data_ptr(), address(lengths),
        kernel, stride, padding, dilation, groups, eps, b, delta, _threads(),
    )  # fmt: skip
    return n, lengths


def row_norm(x: Tensor, eps: float) -> Tensor:
    """Return ``sqrt(sum of squares) + eps`` of each row: x ``[R, D]`` -> ``[R]`` in the accumulation type."""
    norms = x.new_empty(x.shape[0], dtype=accumulator(x))
    _kernels.row_norm(CODES[x.dtype], x.data_ptr(), x.shape, x.stride(), norms.data_ptr(), eps, _threads())
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
    _kernels.patch_norm(
        CODES[x.dtype], x.data_ptr(), x.shape, x.stride(), norms.data_ptr(),
        kernel, stride, padding, dilation, out, groups, eps, _threads(),
    )  # fmt: skip
    return norms


def scale(w_x: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> Tensor:
    """Return ``y * (|y| / n + delta) ** (b - 1)`` of ``y = w_x / lengths``, in the memory of w_x.

    w_x: ``[N, O, P, Q]`` with n ``[N, g, P, Q]``, or ``[R, O]`` with ``[R]``; lengths: ``[O]`` or None; b = 2 takes
    delta as 0.
    """
    _kernels.scale(
        CODES[w_x.dtype], w_x.data_ptr(), image_strides(w_x), image_shape(w_x), n.data_ptr(), address(lengths),
        group_count(n), b, delta, _threads(),
    )  # fmt: skip
    return w_x


def apply_factor(
    v: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float, out: Tensor | None = None
) -> Tensor:
    """Return ``v / lengths`` times the factor of the output ``kept``, whose rows all parts of v ``[S * N, ...]`` share.

    In ``out``, if given, which may be v; else like v.
    """
    out, step = torch.empty_like(v) if out is None else out, kept.shape[0]
    for start in range(0, v.shape[0], step) if step else ():
        _kernels.apply_factor(
            CODES[v.dtype], out[start:].data_ptr(), image_strides(out), v[start:].data_ptr(), image_strides(v),
            kept.data_ptr(), image_strides(kept), image_shape(kept), n.data_ptr(), address(lengths), group_count(n),
            b, delta, _threads(),
        )  # fmt: skip
    return out


def scale_backward(
    grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float
) -> tuple[Tensor, Tensor]:
    """Return the gradient of ``w·x``, like kept, and the coefficients c, like n, of the gradient through the norm.

    kept: the output ``y s``, ``s = (u+delta)^(b-1)``, ``u = |y|/n``, which determines s and u:
    ``grad_y = grad s (1 + (b-1) u/(u+delta)) / lengths`` and
    ``c = -(b-1) sum over the group (grad kept u/(u+delta)) / n^2``.
    """
    grad_y, c = torch.empty_like(kept), torch.empty_like(n)
    _kernels.scale_backward(
        CODES[kept.dtype], grad_y.data_ptr(), image_strides(grad_y), grad.data_ptr(), image_strides(grad),
        kept.data_ptr(), image_strides(kept), image_shape(kept), n.data_ptr(), address(lengths), c.data_ptr(),
        group_count(n), b, delta, _threads(),
    )  # fmt: skip
    return grad_y, c


def project_rows(grad: Tensor, weight: Tensor, lengths: Tensor) -> None:
    """Take from each row of grad, in place, what points along the weight; both ``[O, ...]`` in one memory format."""
    rows = grad.shape[0]
    _kernels.project_rows(
        CODES[grad.dtype], grad.data_ptr(), weight.data_ptr(), (rows, grad.numel() // max(1, rows)),
        lengths.data_ptr(), _threads(),
    )  # fmt: skip


def spread(
    dx: Tensor, x: Tensor, c: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """Add to dx, in place, ``x`` times the coefficients c ``[N, groups, P, Q]`` of all patches that hold the pixel."""
    _kernels.spread(
        CODES[x.dtype], dx.data_ptr(), dx.stride(), x.data_ptr(), x.stride(), x.shape, c.data_ptr(),
        kernel, stride, padding, dilation, c.shape[2:], groups, _threads(),
    )  # fmt: skip


def spread_rows(dx: Tensor, x: Tensor, c: Tensor) -> None:
    """Add ``x * c[:, None]`` to dx in place: dx, x ``[R, D]``, c ``[R]``."""
    _kernels.spread_rows(
        CODES[x.dtype], dx.data_ptr(), dx.stride(), x.data_ptr(), x.stride(), x.shape, c.data_ptr(), _threads()
    )
