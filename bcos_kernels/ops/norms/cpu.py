"""Bias-free normalisation by the C++ kernels: same functions and signatures as ``reference.py``.

Every strided layout is read in place, except that a gradient laid out unlike x is first copied to the layout of x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels import native
from bcos_kernels.ops.epilogue.cpu import supports
from bcos_kernels.ops.epilogue.layout import CODES, accumulator
from bcos_kernels.ops.norms.checks import check_backward, check_forward, check_given


def forward(
    x: Tensor, weight: Tensor | None, groups: int, eps: float, centred: bool, about_mean: bool, per_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``out`` like x, ``mean`` and ``rstd``, as :func:`bcos_kernels.ops.norms.reference.forward`."""
    weight = check_forward(x, weight, groups, per_pixel)
    out = torch.empty_like(x)
    mean, rstd = _statistics(x, out, weight, groups, eps, centred, about_mean, per_pixel)
    return out, mean, rstd


def statistics(x: Tensor, groups: int, eps: float, about_mean: bool, per_pixel: bool) -> tuple[Tensor, Tensor]:
    """Return ``mean`` and ``rstd`` of x, as :func:`bcos_kernels.ops.norms.reference.statistics`."""
    check_forward(x, None, groups, per_pixel)
    return _statistics(x, None, None, groups, eps, False, about_mean, per_pixel)


def apply(x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor) -> Tensor:
    """Return ``weight * (x - mean) * rstd`` like x, of given statistics."""
    weight, mean, rstd, groups = check_given(x, weight, mean, rstd)
    out, kernels = torch.empty_like(x), _kernels(x, rstd)
    flags = rstd.ndim == 4, mean is not None, mean is not None, True, True
    if x.numel():
        kernels.normalise(
            CODES[x.dtype], out.data_ptr(), out.stride(), x.data_ptr(), x.stride(), x.shape, _address(mean),
            rstd.data_ptr(), _address(weight), groups, flags, 0.0, torch.get_num_threads(),
        )  # fmt: skip
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor,
    centred: bool, about_mean: bool, held: bool, need_dx: bool, need_dw: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x and of the weight, as :func:`bcos_kernels.ops.norms.reference.backward`."""
    weight, mean, rstd, groups = check_backward(grad, x, weight, mean, rstd, centred, about_mean)
    if held and not centred and not need_dw:  # x plays no part
        return (apply(grad, weight, None, rstd) if need_dx else grad.new_empty(0)), rstd.new_empty(0)
    if grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    dx = torch.empty_like(x) if need_dx else x.new_empty(0)
    dw = rstd.new_zeros(x.shape[1]) if need_dw else rstd.new_empty(0)
    kernels = _kernels(grad, x, rstd)
    if x.numel():
        kernels.normalise_backward(
            CODES[x.dtype], _address(dx), dx.stride() if need_dx else x.stride(), grad.data_ptr(), grad.stride(),
            x.data_ptr(), x.stride(), x.shape, _address(mean), rstd.data_ptr(), _address(weight), _address(dw), groups,
            (rstd.ndim == 4, about_mean, centred, held, True), torch.get_num_threads(),
        )  # fmt: skip
    return dx, dw


def _statistics(
    x: Tensor, out: Tensor | None, weight: Tensor | None, groups: int, eps: float,
    centred: bool, about_mean: bool, per_pixel: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    shape = (x.shape[0], 1, *x.shape[2:]) if per_pixel else (x.shape[0], groups)
    rstd = x.new_empty(shape, dtype=accumulator(x))
    mean = torch.empty_like(rstd) if about_mean else rstd.new_empty(0)
    kernels = _kernels(x)
    if x.numel():
        kernels.normalise(
            CODES[x.dtype], _address(out), x.stride() if out is None else out.stride(), x.data_ptr(), x.stride(),
            x.shape, _address(mean), rstd.data_ptr(), _address(weight), groups,
            (per_pixel, about_mean, centred, False, False), eps, torch.get_num_threads(),
        )  # fmt: skip
    else:  # as averages of nothing are
        rstd.fill_(torch.nan)
        mean.fill_(torch.nan)
    return mean, rstd


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None or not tensor.numel() else tensor.data_ptr()


def _kernels(*tensors: Tensor):  # type: ignore[no-untyped-def]  # a module that mypy cannot see
    if reason := supports(*tensors):
        raise ValueError(reason)
    return native.load()
