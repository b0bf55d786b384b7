"""The B-cos epilogue as torch operators, on every device: same functions and signatures as ``reference.py``.

This is the backend under torch.compile, which calls operators as they are, and the way for others to use a part of
the epilogue: arguments are checked here, with ValueError, and each call runs on the backend that ``dispatch`` picks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bcos_kernels import dispatch
from bcos_kernels.ops.epilogue import reference
from bcos_kernels.ops.epilogue.checks import (
    check_dims,
    check_factor,
    check_like,
    check_parts,
    check_rows,
    check_scale,
    check_target,
    check_windows,
)
from bcos_kernels.ops.epilogue.layout import accumulator, patch_counts
from bcos_kernels.ops.epilogue.reference import Padding, Pair
from bcos_kernels.ops.library import differentiate, register

_WINDOW = "int[2] kernel, int[2] stride, int[4] padding, int[2] dilation, int groups"
_ALIGNMENT = "Tensor n, Tensor? lengths, float b, float delta"


def row_norm(x: Tensor, eps: float) -> Tensor:
    """``sqrt(sum of squares) + eps`` of each row: x ``[R, D]`` -> ``[R]`` in the accumulation type."""
    return _row_norm(x, eps)  # type: ignore[no-any-return]


def patch_norm(
    x: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int, eps: float
) -> Tensor:
    """``sqrt(sum of squares in the patch + eps)``: x ``[N, C, H, W]`` -> ``[N, groups, P, Q]``."""
    return _patch_norm(x, kernel, stride, padding, dilation, groups, eps)  # type: ignore[no-any-return]


def scale(w_x: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> Tensor:
    """``y * (|y| / n + delta) ** (b - 1)`` of ``y = w_x / lengths``, in the memory of w_x."""
    _scale_(w_x, n, lengths, b, delta)
    return w_x


def apply_factor(v: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> Tensor:
    """``v / lengths`` times the factor of the output ``kept``, which all parts of v ``[S * N, ...]`` share; like v."""
    return _apply_factor(v, kept, n, lengths, b, delta)  # type: ignore[no-any-return]


def scale_backward(
    grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float
) -> tuple[Tensor, Tensor]:
    """Gradient of ``w·x``, like kept, and coefficients c, like n, of the gradient through the norm."""
    return _scale_backward(grad, kept, n, lengths, b, delta)  # type: ignore[no-any-return]


def project_rows(grad: Tensor, weight: Tensor, lengths: Tensor) -> None:
    """Take from each row of grad, in place, what points along the weight; both ``[O, ...]`` in one memory format."""
    _project_rows(grad, weight, lengths)


def spread(
    dx: Tensor, x: Tensor, c: Tensor, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> None:
    """Add to dx, in place, x times the coefficients c ``[N, groups, P, Q]`` of all patches that hold the pixel."""
    _spread(dx, x, c, kernel, stride, padding, dilation, groups)


def spread_rows(dx: Tensor, x: Tensor, c: Tensor) -> None:
    """Add ``x * c[:, None]`` to dx in place: dx, x ``[R, D]``, c ``[R]``."""
    _spread_rows(dx, x, c)


def _run_row_norm(x: Tensor, eps: float) -> Tensor:
    check_dims("x", x, 2)
    return dispatch.epilogue(x).row_norm(x, eps)  # type: ignore[no-any-return]


def _run_patch_norm(
    x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int, eps: float
) -> Tensor:
    window = _window(kernel, stride, padding, dilation)
    check_windows(x, *window, groups)
    return dispatch.epilogue(x).patch_norm(x, *window, groups, eps)  # type: ignore[no-any-return]


def _run_scale(w_x: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> Tensor:
    out = w_x.clone()
    check_scale(out, n, lengths, b)
    return dispatch.epilogue(out, n).scale(out, n.contiguous(), _dense(lengths), b, delta)  # type: ignore[no-any-return]


def _run_scale_(w_x: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> None:
    check_scale(w_x, n, lengths, b)
    out = dispatch.epilogue(w_x, n).scale(w_x, n.contiguous(), _dense(lengths), b, delta)
    if out is not w_x:
        w_x.copy_(out)


def _run_apply_factor(v: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> Tensor:
    check_scale(kept, n, lengths, b)
    check_parts(v, kept)
    backend = dispatch.epilogue(v, kept, n)
    return backend.apply_factor(v, kept, n.contiguous(), _dense(lengths), b, delta)  # type: ignore[no-any-return]


def _run_scale_backward(
    grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float
) -> tuple[Tensor, Tensor]:
    check_scale(kept, n, lengths, b)
    check_like("grad", grad, kept)
    backend = dispatch.epilogue(grad, kept, n)
    return backend.scale_backward(grad, kept, n.contiguous(), _dense(lengths), b, delta)  # type: ignore[no-any-return]


def _run_project_rows(grad: Tensor, weight: Tensor, lengths: Tensor) -> None:
    check_rows(grad, weight, lengths)
    dispatch.epilogue(grad, weight).project_rows(grad, weight, lengths.contiguous())


def _run_spread(
    dx: Tensor, x: Tensor, c: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> None:
    window = _window(kernel, stride, padding, dilation)
    counts = check_windows(x, *window, groups)
    check_target(dx, x)
    check_factor("c", c, (x.shape[0], groups, *counts), x)
    dispatch.epilogue(dx, x, c).spread(dx, x, c.contiguous(), *window, groups)


def _run_spread_rows(dx: Tensor, x: Tensor, c: Tensor) -> None:
    check_dims("x", x, 2)
    check_target(dx, x)
    check_factor("c", c, (x.shape[0],), x)
    dispatch.epilogue(dx, x, c).spread_rows(dx, x, c.contiguous())


def _window(kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[Pair, Pair, Padding, Pair]:
    """The dispatcher hands over lists."""
    return tuple(kernel), tuple(stride), tuple(padding), tuple(dilation)


def _dense(lengths: Tensor | None) -> Tensor | None:
    return None if lengths is None else lengths.contiguous()


def _nothing(*arguments: Any) -> None:
    """The shapes of an operator that returns nothing."""


def _norms_of_patches(
    x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int, eps: float
) -> Tensor:
    counts = patch_counts(x, *_window(kernel, stride, padding, dilation))
    return x.new_empty((x.shape[0], groups, *counts), dtype=accumulator(x))


_row_norm = register(
    "row_norm(Tensor x, float eps) -> Tensor",
    _run_row_norm,
    lambda x, eps: x.new_empty(x.shape[0], dtype=accumulator(x)),
)
_patch_norm = register(f"patch_norm(Tensor x, {_WINDOW}, float eps) -> Tensor", _run_patch_norm, _norms_of_patches)
_scale = register(f"scale(Tensor w_x, {_ALIGNMENT}) -> Tensor", _run_scale, lambda w_x, *rest: torch.empty_like(w_x))
_scale_ = register(f"scale_(Tensor(a!) w_x, {_ALIGNMENT}) -> ()", _run_scale_, _nothing)
_apply_factor = register(
    f"apply_factor(Tensor v, Tensor kept, {_ALIGNMENT}) -> Tensor",
    _run_apply_factor,
    lambda v, *rest: torch.empty_like(v),
)
_scale_backward = register(
    f"scale_backward(Tensor grad, Tensor kept, {_ALIGNMENT}) -> (Tensor, Tensor)",
    _run_scale_backward,
    lambda grad, kept, n, *rest: (torch.empty_like(kept), torch.empty_like(n, memory_format=torch.contiguous_format)),
)
_project_rows = register(
    "project_rows(Tensor(a!) grad, Tensor weight, Tensor lengths) -> ()", _run_project_rows, _nothing
)
_spread = register(f"spread(Tensor(a!) dx, Tensor x, Tensor c, {_WINDOW}) -> ()", _run_spread, _nothing)
_spread_rows = register("spread_rows(Tensor(a!) dx, Tensor x, Tensor c) -> ()", _run_spread_rows, _nothing)


def _row_norm_backward(inputs: list[Any], norms: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, eps = inputs
    dx, length = torch.zeros_like(x), norms - eps
    spread_rows(dx, x, torch.where(length > 0, grad / length, 0))
    return dx, None


def _patch_norm_backward(inputs: list[Any], norms: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, *window, groups, _ = inputs
    dx = torch.zeros_like(x)
    spread(dx, x, torch.where(norms > 0, grad / norms, 0), *_window(*window), groups)
    return dx, *[None] * 6


def _scale_gradients(inputs: list[Any], out: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    w_x, n, lengths, b, delta = inputs
    grad_w_x, c = scale_backward(grad, out, n, lengths, b, delta)
    return grad_w_x, c * n, _of_lengths(grad_w_x, w_x, lengths), None, None


def _apply_factor_gradients(inputs: list[Any], out: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    _, kept, n, lengths, b, delta = inputs
    grad_v = apply_factor(grad, kept, n, lengths, b, delta)
    return grad_v, None, None, _of_lengths(grad, out, lengths), None, None


def _of_lengths(grad: Tensor, y: Tensor, lengths: Tensor | None) -> Tensor | None:
    """The gradient of the lengths by which y was divided; 0 for a unit without length."""
    if lengths is None:
        return None
    total = (grad.to(lengths.dtype) * y).sum([d for d in range(y.ndim) if d != 1])
    return torch.where(lengths == 0, 0, -total / lengths)


def _held_factor(v: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None, b: float, delta: float) -> Tensor:
    """What ``apply_factor`` is to autograd: linear in v, over the lengths, times a constant."""
    with torch.no_grad():
        s = reference.factor_of_kept(kept, n, b, delta)
    return reference.apply_to_parts(v, s * reference.gains(lengths, kept))


differentiate(_row_norm, reference.row_norm, _row_norm_backward)
differentiate(_patch_norm, reference.patch_norm, _patch_norm_backward)
differentiate(_scale, reference.scale, _scale_gradients)
differentiate(_apply_factor, _held_factor, _apply_factor_gradients)
