"""``torch.ops.bcos_kernels.normalise`` and ``normalise_backward``, its gradient.

Arguments are checked here, with ValueError; each call runs on the backend that ``dispatch`` picks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels import dispatch
from bcos_kernels.ops.epilogue.layout import accumulator
from bcos_kernels.ops.library import register
from bcos_kernels.ops.norms.checks import check_backward, check_forward


def _normalise(
    x: Tensor, weight: Tensor | None, groups: int, eps: float, centred: bool, about_mean: bool, per_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if centred and not about_mean:
        raise ValueError("a centred norm divides by deviations: about_mean must be true")
    weight = check_forward(x, weight, groups, per_pixel)
    out, mean, rstd = dispatch.norms(x).forward(x, weight, groups, eps, centred, about_mean, per_pixel)
    return _like(out, x), mean.contiguous(), rstd.contiguous()


def _normalise_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor,
    centred: bool, about_mean: bool, held: bool, need_dx: bool, need_dw: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    weight, mean, rstd = check_backward(grad, x, weight, mean, rstd, centred, about_mean)
    backend = dispatch.norms(grad, x, rstd)
    dx, dw = backend.backward(grad, x, weight, mean, rstd, centred, about_mean, held, need_dx, need_dw)
    return _like(dx, x) if need_dx else x.new_empty(0), dw


def _like(found: Tensor, x: Tensor) -> Tensor:
    """The layout that the shapes of the operator promise, whichever backend ran."""
    room = torch.empty_like(x)
    return found if found.stride() == room.stride() else room.copy_(found)


def _shapes(
    x: Tensor, weight: Tensor | None, groups: int, eps: float, centred: bool, about_mean: bool, per_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (x.shape[0], 1, *x.shape[2:]) if per_pixel else (x.shape[0], groups)
    rstd = x.new_empty(shape, dtype=accumulator(x))
    return torch.empty_like(x), rstd.new_empty(shape if about_mean else 0), rstd


def _shapes_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor,
    centred: bool, about_mean: bool, held: bool, need_dx: bool, need_dw: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dx = torch.empty_like(x) if need_dx else x.new_empty(0)
    return dx, rstd.new_empty(x.shape[1] if need_dw else 0)


register(
    "normalise(Tensor x, Tensor? weight, int groups, float eps, bool centred, bool about_mean, bool per_pixel)"
    " -> (Tensor, Tensor, Tensor)",
    _normalise,
    _shapes,
)
register(
    "normalise_backward(Tensor grad, Tensor x, Tensor? weight, Tensor? mean, Tensor rstd, bool centred,"
    " bool about_mean, bool held, bool need_dx, bool need_dw) -> (Tensor, Tensor)",
    _normalise_backward,
    _shapes_backward,
)
