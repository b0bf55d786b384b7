"""A B-cos layer whose linear map is a matrix product, and its two passes by an epilogue around the vendor's product."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Forward = tuple[Tensor, Tensor, Tensor | None]
"""``out [R, O]``, norms ``[R]``, lengths ``[O]`` (None where the weight is taken as it is)."""


class Rows(NamedTuple):
    """x ``[R, D]``, weight ``[O, D]``, and the eps of the norm of a row: under the root, or beside it."""

    x: Tensor
    weight: Tensor
    eps: float
    root_of_sum: bool


class Alignment(NamedTuple):
    """``out = y (|cos| + delta)^(b - 1)``; unit: y is ``w·x`` over ``‖w‖``; held: |cos| has no derivative."""

    unit: bool
    b: float
    delta: float
    held: bool


def forward(backend: ModuleType, rows: Rows, alignment: Alignment) -> Forward:
    """The layer by three passes around the product."""
    x, weight, eps, root_of_sum = rows
    w_x = F.linear(x, weight)
    lengths = backend.row_norm(weight, 0.0) if alignment.unit else None
    if root_of_sum:
        line = x.t()[None, :, None, :]  # an image of one line, of which each pixel is a patch
        n = backend.patch_norm(line, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, eps).view(-1)
    else:
        n = backend.row_norm(x, eps)
    return backend.scale(w_x, n, lengths, alignment.b, alignment.delta), n, lengths


def backward(
    backend: ModuleType, rows: Rows, alignment: Alignment, grad: Tensor, kept: Tensor, n: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradient of x and of the responses ``w·x`` (mathematics §2); kept: the output."""
    x, weight, eps, root_of_sum = rows
    _, b, delta, held = alignment
    if held:
        grad_y = backend.apply_factor(grad, kept, n, lengths, b, delta)
        return grad_y @ weight, grad_y
    grad_y, c = backend.scale_backward(grad, kept, n, lengths, b, delta)
    dx = grad_y @ weight
    backend.spread_rows(dx, x, c if root_of_sum else c * norm_slope(n, eps))
    return dx, grad_y


def norm_slope(n: Tensor, eps: float) -> Tensor:
    """``n / ‖x‖`` of a norm ``‖x‖ + eps``: what its derivative has more than x·dx / n; 0 at x = 0."""
    length = n - eps
    return torch.where(length > 0, n / length, torch.zeros_like(n))
