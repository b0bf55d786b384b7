"""Bias-free normalisation by the C++ kernels: same functions and signatures as ``reference.py``.

Every strided layout is read in place, except that a gradient laid out unlike x is first copied to the layout of x.
Nothing is checked here, as in ``ops/epilogue/cpu.py``: the callers are ``op.py``, whose tensors fit, and
``operators.py``, which checks. Weights and statistics are contiguous, in the accumulation type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from bcos_kernels import native
from bcos_kernels.ops.epilogue.layout import CODES, accumulator

_kernels: Any = native.load()
_threads = torch.get_num_threads


def forward(
    x: Tensor, weight: Tensor | None, groups: int, eps: float, centred: bool, about_mean: bool, per_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``out`` like x, ``mean`` and ``rstd``, as :func:`bcos_kernels.ops.norms.reference.forward`."""
    out = torch.empty_like(x)
    mean, rstd = _room(x, groups, about_mean, per_pixel)
    _run(out, x, mean, rstd, weight, groups, (per_pixel, about_mean, centred, False, False), eps)
    return out, mean, rstd


def output(
    x: Tensor, weight: Tensor | None, groups: int, eps: float, centred: bool, about_mean: bool, per_pixel: bool
) -> Tensor:
    """Return ``out`` alone, at the price of two tensors less."""
    out = torch.empty_like(x)
    _run(out, x, None, None, weight, groups, (per_pixel, about_mean, centred, False, False), eps)
    return out


def statistics(x: Tensor, groups: int, eps: float, about_mean: bool, per_pixel: bool) -> tuple[Tensor, Tensor]:
    """Return ``mean`` and ``rstd`` of x, as :func:`bcos_kernels.ops.norms.reference.statistics`."""
    mean, rstd = _room(x, groups, about_mean, per_pixel)
    _run(None, x, mean, rstd, None, groups, (per_pixel, about_mean, False, False, False), eps)
    return mean, rstd


def apply(x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor) -> Tensor:
    """Return ``weight * (x - mean) * rstd`` like x, of given statistics."""
    out, centred = torch.empty_like(x), mean is not None
    _run(out, x, mean, rstd, weight, rstd.shape[1], (rstd.ndim == 4, centred, centred, True, True), 0.0)
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor,
    centred: bool, about_mean: bool, held: bool, need_dx: bool, need_dw: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x and of the weight, as :func:`bcos_kernels.ops.norms.reference.backward`."""
    if held and not centred and not need_dw:  # x plays no part
        return (apply(grad, weight, None, rstd) if need_dx else grad.new_empty(0)), rstd.new_empty(0)
    x_strides = x.stride()
    if grad.stride() != x_strides:
        grad = torch.empty_like(x).copy_(grad)
    dx = torch.empty_like(x) if need_dx else x.new_empty(0)
    dw = rstd.new_empty(x.shape[1] if need_dw else 0)
    if x.numel():
        _kernels.normalise_backward(
            CODES[x.dtype], _address(dx), dx.stride() if need_dx else x_strides, grad.data_ptr(), grad.stride(),
            x.data_ptr(), x_strides, x.shape, _address(mean), rstd.data_ptr(), _address(weight), _address(dw),
            rstd.shape[1], (rstd.ndim == 4, about_mean, centred, held, True), _threads(),
        )  # fmt: skip
    else:
        dw.zero_()
    return dx, dw


def track(
    running_mean: Tensor | None, running_power: Tensor, mean: Tensor, rstd: Tensor,
    eps: float, share: float, gain: float,
) -> None:  # fmt: skip
    """As :func:`bcos_kernels.ops.norms.reference.track`, of running statistics in the type of rstd, contiguous."""
    _kernels.track(
        CODES[rstd.dtype], running_power.numel(), _address(running_mean), running_power.data_ptr(),
        _address(mean), rstd.data_ptr(), eps, share, gain,
    )  # fmt: skip
    for changed in (running_mean, running_power):
        if changed is not None and not changed.is_inference():
            increment_version(changed)


def _room(x: Tensor, groups: int, about_mean: bool, per_pixel: bool) -> tuple[Tensor, Tensor]:
    """Tensors for ``mean`` and ``rstd``."""
    shape = (x.shape[0], 1, *x.shape[2:]) if per_pixel else (x.shape[0], groups)
    rstd = x.new_empty(shape, dtype=accumulator(x))
    mean = torch.empty_like(rstd) if about_mean else rstd.new_empty(0)
    if not x.numel():  # as averages of nothing are
        rstd.fill_(torch.nan)
        mean.fill_(torch.nan)
    return mean, rstd


def _run(
    out: Tensor | None, x: Tensor, mean: Tensor | None, rstd: Tensor | None, weight: Tensor | None, groups: int,
    flags: tuple[bool, bool, bool, bool, bool], eps: float,
) -> None:  # fmt: skip
    if x.numel():
        strides = x.stride()
        _kernels.normalise(
            CODES[x.dtype], _address(out), strides if out is None else out.stride(), x.data_ptr(), strides, x.shape,
            _address(mean), _address(rstd), _address(weight), groups, flags, eps, _threads(),
        )  # fmt: skip


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
